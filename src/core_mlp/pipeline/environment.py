"""Outside influences that change results or block DVC: variables, packages, odd files.

Run as a program, it checks data/source, which DVC reads before any stage runs:

    python -m core_mlp.pipeline.environment
"""

import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from core_mlp.pipeline.errors import InputError, exit_on_input_error
from core_mlp.pipeline.text import visible

SOURCE = Path("data/source")
# Prefixes of the variables that change what XLA, TensorFlow, oneDNN, LiteRT and CUDA's
# libraries compute. OPENBLAS_CORETYPE, NPY_DISABLE_CPU_FEATURES and GLIBC_TUNABLES were
# tried and did not change a single byte.
SETTINGS = (
    "XLA_", "TF_", "ONEDNN_", "DNNL_", "TFLITE_", "XNNPACK_",
    "NVIDIA_TF32_OVERRIDE", "CUBLAS_", "CUDNN_", "NCCL_",
)  # fmt: skip
# Exceptions, which change no result: logs, Keras, who trains, how workers connect ...
HARMLESS = (
    "TF_CPP_", "TF_USE_LEGACY_KERAS", "TF_ENABLE_ONEDNN_OPTS", "TF_CONFIG",
    "NCCL_DEBUG", "NCCL_SOCKET_", "ONEDNN_VERBOSE", "DNNL_VERBOSE",
    # ... and Terraform's variables, which share the prefix.
    "TF_ACC", "TF_CLI_", "TF_DATA_DIR", "TF_IGNORE", "TF_INPUT", "TF_IN_AUTOMATION",
    "TF_LOG", "TF_PLUGIN_", "TF_REATTACH_", "TF_REGISTRY_", "TF_STATE_", "TF_TOKEN_",
    "TF_VAR_", "TF_WORKSPACE",
)  # fmt: skip
NUM_NAMED = 3


def settings_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that change what is computed, sorted by name.

    >>> settings_of({"XLA_FLAGS": "--x", "TF_CPP_MIN_LOG_LEVEL": "2", "HOME": "/root"})
    {'XLA_FLAGS': '--x'}
    """
    return {
        name: value
        for name, value in sorted(environ.items())
        if name.startswith(SETTINGS) and not name.startswith(HARMLESS)
    }


def find_warnings(environ: Mapping[str, str], lock: Path | None) -> list[str]:
    """Returns a warning for everything that can change results unseen by DVC.

    Args:
      environ: The environment as the user gave it, before TensorFlow is set up.
      lock: The lock file that the stages depend on; None if unknown.
    """
    lines = [
        f"warning: {name}={visible(value)} is set: it can change results, and DVC does "
        "not see it: its run cache may return these results to runs without it"
        for name, value in settings_of(environ).items()
    ]
    others = list(_other_packages(lock)) if lock and lock.exists() else []
    if others:
        named = ", ".join(others[:NUM_NAMED])
        more = f" and {len(others) - NUM_NAMED} more" if others[NUM_NAMED:] else ""
        lines.append(
            f"warning: installed packages differ from {lock}: {named}{more}: this can "
            "change results, and DVC does not see it: run `rm -r .venv` and `make "
            "setup` to install the locked versions"
        )
    return lines


def used_lock() -> Path | None:
    """Returns the lock file that the stages in dvc.yaml depend on, if they name one."""
    try:
        text = Path("dvc.yaml").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"^- requirements: *(\S+)", text, re.M)
    return Path(found[1]) if found else None


def _other_packages(lock: Path) -> Iterator[str]:
    """Yields each package of a lock file that is missing or has another version."""
    installed = _installed_versions()
    for line in re.findall(
        r"^[\w.-]+==[^\\\n]+", lock.read_text("utf-8", "replace"), re.M
    ):
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue  # Edited by hand; `make setup` reports it.
        if requirement.marker and not requirement.marker.evaluate():
            continue
        version = installed.get(canonicalize_name(requirement.name))
        if version is None:
            yield f"{requirement.name} is missing"
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} {version}, not {str(requirement.specifier)[2:]}"


def _installed_versions() -> dict[str, str]:
    """Returns the version of each installed package, taken from its folder's name.

    importlib.metadata would parse a file per package, which takes ten times as long.
    """
    versions = {}
    # The first folder of the path wins, as it does for imports.
    for folder in reversed(sys.path):
        for path in Path(folder).glob("*.dist-info"):
            name, _, version = path.stem.rpartition("-")
            versions[canonicalize_name(name)] = version
    return versions


def check_source(folder: Path = SOURCE) -> None:
    """Checks that DVC can read all files in a folder; it need not exist.

    DVC would wait for a FIFO forever, without a message, before any stage runs.

    Raises:
      InputError: If there is anything other than readable files and folders, and links
        to them.
    """
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(folder, f"cannot be read ({error.strerror})") from None
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            check_source(Path(entry.path))
            continue
        try:
            mode = os.stat(entry.path).st_mode
        except OSError:
            raise _unreadable(entry.path, "is a broken link") from None
        if stat.S_ISDIR(mode):
            continue  # DVC does not follow such links; fetch reports them.
        if not stat.S_ISREG(mode):
            kind = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}
            raise _unreadable(
                entry.path, f"is a {kind.get(stat.S_IFMT(mode), 'device')}"
            )
        if not os.access(entry.path, os.R_OK):
            raise _unreadable(entry.path, "cannot be read (Permission denied)")


def _unreadable(path: Path | str, problem: str) -> InputError:
    return InputError(
        f"{path}: {problem}: DVC has to read all files in {SOURCE}, and would hang or "
        "fail: delete it or move it elsewhere"
    )


if __name__ == "__main__":
    with exit_on_input_error():
        check_source()
