"""The setup of .venv, with stand-ins for Python, pip and uv, and the lock files."""

import re
import shutil
import tomllib

import pytest
from helpers import ROOT, run, try_to_run

FILES = (
    "Makefile",
    "dvc.yaml",
    "requirements.lock",
    "requirements-dev.lock",
    "requirements-gpu.lock",
)
# Stands in for Python, pip and uv: logs how it was called, and makes a .venv of itself.
STAND_IN = r"""#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
env | grep -E '^(UV_|PIP_|PYTHON|SSL_)' | sort > "$LOG.environment"
case "$*" in
  *"venv "*) rm -rf .venv; mkdir -p .venv/bin
    for name in python dvc; do cp "$0" .venv/bin/$name; done ;;
  *"pip install "*uv.lock) test -z "${NO_UV-}" && cp "$0" .venv/bin/uv ;;
  *"pip config list") printf '%s\n' "${PIP_SETTINGS-}" ;;
  "pip install "*) test -z "${UV_FAILS-}" ;;
esac
"""
EDITABLE = "--no-build-isolation --editable ."


@pytest.fixture(params=["plain", "it's a (clone) é & #x; ~y%z"])
def project(request, tmp_path):
    return make_project(tmp_path / request.param)


@pytest.fixture
def plain(tmp_path):
    return make_project(tmp_path / "plain")


def make_project(folder):
    """Makes a folder with what the setup reads, and `python` in a folder beside it."""
    (folder / ".ci").mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    shutil.copy(ROOT / ".ci/set_up", folder / ".ci")
    (folder / ".dvc").mkdir()
    (folder.parent / "bin").mkdir()
    python = folder.parent / "bin/python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    return folder


def make(folder, *arguments, **environment):
    """Runs make; returns its result and what installed which packages."""
    log = folder.parent / "log"
    log.write_text("")
    environment = {
        "PYTHON": str(folder.parent / "bin/python"),
        "UV": "",
        "LOG": str(log),
        "HOME": str(folder.parent),
        "PIP_SETTINGS": "",
        **environment,
    }
    result = try_to_run("make", *arguments, cwd=folder, **environment)
    calls = re.findall(r"^(python|uv) (?:-m )?pip install (.*)", log.read_text(), re.M)
    quiet = r"--(quiet|disable-pip-version-check|no-deps|python \S+) "
    return result, [f"{tool}: {re.sub(quiet, '', call)}" for tool, call in calls]


def with_uv(lock):
    return f"uv: --require-hashes -r {lock}"


UV_BY_PIP = "python: --require-hashes -r .venv/uv.lock"
ALL = [UV_BY_PIP, with_uv("requirements.lock"), f"uv: {EDITABLE}"]
DEV = [with_uv("requirements-dev.lock")]


def test_each_lock_is_installed_once_and_anew_when_it_changes(project):
    result, calls = make(project, "setup")
    assert result.returncode == 0, result.stdout
    assert calls == ALL
    assert make(project, "setup")[1] == []
    assert make(project, "setup-dev")[1] == DEV
    assert make(project, "setup-dev")[1] == []
    assert make(project, "setup")[1] == []

    with (project / "requirements-dev.lock").open("a") as lock:
        lock.write("# Changed\n")
    assert make(project, "setup")[1] == []
    assert make(project, "setup-dev")[1] == ALL + DEV

    with (project / "requirements.lock").open("a") as lock:
        lock.write("# Changed\n")
    assert make(project, "setup")[1] == ALL
    assert make(project, "setup-dev")[1] == DEV


@pytest.mark.parametrize(
    ("target", "calls"),
    [
        ("repro", ALL),
        ("report", ALL),
        ("seeds", ALL),
        ("test", ALL + DEV),
        ("lint", ALL + DEV),
    ],
)
def test_only_what_a_target_needs_is_installed(plain, target, calls):
    (plain / ".venv/bin").mkdir(parents=True)

    assert make(plain, target)[1] == calls


def test_the_lock_for_gpus_becomes_the_dependency_of_the_stages(project):
    before = (project / "dvc.yaml").read_text()
    result, calls = make(project, "setup", "LOCK=requirements-gpu.lock")

    assert result.returncode == 0, result.stdout
    assert calls == [
        UV_BY_PIP,
        with_uv("requirements-gpu.lock"),
        f"uv: {EDITABLE}",
    ]
    after = (project / "dvc.yaml").read_text()
    assert after == before.replace(
        "- requirements: requirements.lock", "- requirements: requirements-gpu.lock"
    )
    assert make(project, "setup")[1] == []
    # Back, as `git checkout dvc.yaml` does.
    (project / "dvc.yaml").write_text(before)
    assert make(project, "setup")[1] == ALL


def test_a_lock_file_that_is_missing_changes_nothing(plain):
    make(plain, "setup")
    before = (plain / "dvc.yaml").read_text()

    result, calls = make(plain, "setup", "LOCK=requirements-cpu.lock")

    assert result.returncode != 0
    assert "error: there is no requirements-cpu.lock\n" in result.stdout
    assert calls == []
    assert (plain / "dvc.yaml").read_text() == before
    assert (plain / ".venv/bin/uv").exists()


def test_uv_from_the_path_is_used(plain):
    shutil.copy(plain.parent / "bin/python", plain.parent / "bin/uv")

    _, calls = make(plain, "setup", f"UV={plain.parent / 'bin/uv'}")

    assert calls == ALL[1:]


def test_pip_alone_installs_on_request(plain):
    _, calls = make(plain, "setup-dev", "UV=none")

    assert calls == [call.replace("uv:", "python:") for call in (ALL + DEV)[1:]]


def test_pip_installs_where_uv_cannot_be_installed(plain):
    result, calls = make(plain, "setup", NO_UV="1")

    assert result.returncode == 0
    assert calls == [UV_BY_PIP, *(call.replace("uv:", "python:") for call in ALL[1:])]
    assert "uv cannot be installed here" in result.stdout


def test_pip_installs_what_uv_fails_to_install(plain):
    result, calls = make(plain, "setup", UV_FAILS="1")

    assert result.returncode == 0
    assert calls[1:3] == [ALL[1], ALL[1].replace("uv:", "python:")]
    assert "uv has failed, so pip tries\n" in result.stdout


def test_an_inherited_environment_does_not_change_what_is_installed(plain):
    foreign = {
        "PYTHONPATH": "/other",
        "PYTHONHOME": "/other",
        "PYTHONSAFEPATH": "1",
        "PIP_TARGET": "/other",
        "PIP_PREFIX": "/other",
        "PIP_REQUIRE_HASHES": "1",
        "UV_SYSTEM_PYTHON": "1",
        "UV_REQUIRE_HASHES": "1",
        "UV_EXCLUDE_NEWER": "2020-01-01",
        "UV_CONSTRAINT": "/other",
    }
    own = {"UV_CACHE_DIR": "/cache", "PIP_USER": "1", "PIP_INDEX_URL": "https://a"}

    result, calls = make(plain, "setup-dev", **foreign, **own)

    assert result.returncode == 0
    assert calls == ALL + DEV
    lines = (plain.parent / "log.environment").read_text().splitlines()
    passed = dict(line.split("=", maxsplit=1) for line in lines)
    assert passed.keys() & foreign.keys() == set()
    assert passed["UV_CACHE_DIR"] == "/cache"
    assert passed["PIP_INDEX_URL"] == "https://a"
    # A user's pip.conf may set it to true, which no .venv allows.
    assert passed["PIP_USER"] == "0"


SETTINGS = r""":env:.index-url='https://a.example/simple'
global.cert='/ca.pem'
global.extra-index-url='https://b.example/simple https://c.example/simple'
global.find-links='\n/wheels\n/more'
global.index-url='https://no.example/simple'"""


def test_uv_is_told_the_indexes_of_pip(plain):
    make(plain, "setup-dev", PIP_SETTINGS=SETTINGS, SSL_CERT_FILE="")

    passed = (plain.parent / "log.environment").read_text()
    assert "UV_DEFAULT_INDEX=https://a.example/simple\n" in passed
    assert "UV_INDEX=https://b.example/simple https://c.example/simple\n" in passed
    assert "UV_INDEX_STRATEGY=unsafe-best-match\n" in passed
    assert "UV_FIND_LINKS=/wheels,/more\n" in passed
    assert "SSL_CERT_FILE=/ca.pem\n" in passed


@pytest.mark.parametrize("own", ["variable", "file"])
def test_uv_keeps_indexes_of_its_own(plain, own):
    if own == "file":
        (plain.parent / ".config/uv").mkdir(parents=True)
        (plain.parent / ".config/uv/uv.toml").touch()
    variable = {"UV_INDEX": "https://own.example"} if own == "variable" else {}

    make(plain, "setup-dev", PIP_SETTINGS=SETTINGS, XDG_CONFIG_HOME="", **variable)

    passed = (plain.parent / "log.environment").read_text()
    assert "UV_DEFAULT_INDEX" not in passed
    assert ("UV_INDEX=https://own.example\n" in passed) == (own == "variable")


@pytest.mark.parametrize(
    ("python", "problem"),
    [
        ("", "error: needs Python 3.11, 3.12 or 3.13: try `uv python install 3.13`"),
        ("/old/python", "error: /old/python is not Python 3.11, 3.12 or 3.13"),
        ("/it's old/p", "error: /it's old/p is not Python 3.11, 3.12 or 3.13"),
    ],
)
def test_setup_without_a_fitting_python_says_what_to_do(plain, python, problem):
    result, _ = make(plain, "setup", f"PYTHON={python}")

    assert result.returncode != 0
    assert problem in result.stdout
    assert not (plain / ".venv").exists()


@pytest.mark.parametrize("name", ["a:b", "a$b", 'a"b', "a`b", "a\\b"])
def test_a_folder_that_no_environment_can_be_in_is_refused(tmp_path, name):
    folder = make_project(tmp_path / name)

    result, calls = make(folder, "setup")

    assert result.returncode != 0
    assert "error: a Python environment cannot be in a folder with" in result.stdout
    assert calls == []


def test_a_revision_reaches_the_command_as_it_is(plain):
    result = run("make", "--dry-run", "report", "BASE=it's $(x)", cwd=plain)

    assert 'core-mlp report "$BASE"' in result


def versions(name):
    """Returns the pinned versions of a lock file: `name==version` and its markers."""
    text = (ROOT / name).read_text()
    pins = re.findall(r"^([\w.-]+)==(\S+)(.*?) \\$", text, re.M)
    return {(package, version) for package, version, _ in pins}


def test_the_lock_files_agree():
    base, dev, gpu = map(versions, FILES[2:])

    assert base <= gpu
    # A package is in both if development needs it on more platforms.
    shared = {name for name, _ in base} & {name for name, _ in dev}
    assert {pin for pin in dev if pin[0] in shared} <= base


def test_each_package_is_in_the_lock_file_of_those_who_need_it():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    base, dev, gpu = ({name for name, _ in versions(file)} for file in FILES[2:])

    def names(requirements):
        found = (re.match(r"[\w.-]+", requirement)[0] for requirement in requirements)
        return {re.sub(r"[-_.]+", "-", name).lower() for name in found}

    assert names(project["dependencies"]) <= base
    assert names([*extras["dev"], *extras["demo"], *extras["suspects"]]) <= base | dev
    assert {"ruff", "pytest", "gradio", "uv"} & base == set()
    assert any(name.startswith("nvidia-") for name in gpu - base)
