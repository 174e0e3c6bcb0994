"""Lists what a folder in data/source contains, as DVC sees it.

fetch runs again only if a file that DVC hashes has changed. It must therefore read no
other files: neither those behind a link to a folder nor those that DVC ignores.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

from core_mlp.pipeline.errors import InputError

if TYPE_CHECKING:
    from dvc.ignore import DvcIgnoreFilter


class Listing(NamedTuple):
    """The content of a folder, without hidden files.

    Attributes:
      root: The folder, which need not exist.
      files: Path of each file that DVC hashes, relative to root.
      folders: Path of each folder in root, at any depth, relative to root.
      ignored: Path of each file that DVC ignores, relative to root.
    """

    root: Path
    files: list[str]
    folders: list[str]
    ignored: list[str]

    def refuse_ignored(self, path: str) -> None:
        """Raises InputError for a file that is needed, but that DVC ignores."""
        file = self.root / path
        raise InputError(
            f"{file}: DVC ignores it{_rule(file)}, and would not notice a change: "
            "change the rule, or move the file"
        )


def list_folder(source_dir: Path, name: str) -> Listing:
    """Lists a folder of `source_dir`, in the order of the names.

    A link to a file counts as that file, since DVC hashes its content.

    Args:
      source_dir: A folder that DVC hashes as a whole.
      name: The folder's name, or its path in `source_dir`. It need not exist.

    Raises:
      InputError: If there is something that DVC does not hash: a link to a folder, a
        broken link, a folder that cannot be read, a FIFO, a socket or a device.
    """
    root = source_dir / name
    if ".." in PurePath(name).parts:
        raise InputError(f"dataset = {name}: expected a folder in {source_dir}")
    # data/source itself may be a link: DVC follows that one.
    path = source_dir
    for part in PurePath(name).parts:
        path /= part
        if path.is_symlink():
            _refuse_link(str(path))
    files, folders = [], []
    if root.is_dir():
        for found, is_folder in _walk(str(root)):
            relative = found[len(str(root)) + 1 :]
            if is_folder:
                folders.append(relative)
            else:
                files.append(relative)
    hashed = _files_hashed(source_dir, root) if files else None
    if hashed is None:
        return Listing(root, files, folders, [])
    ignored = [file for file in files if file not in hashed]
    return Listing(root, [file for file in files if file in hashed], folders, ignored)


def _walk(folder: str) -> Iterator[tuple[str, bool]]:
    """Yields each visible path below a folder, and whether it is a folder."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        problem = f"cannot be read ({error.strerror}), and DVC would take it for empty"
        raise InputError(f"{folder}: {problem}") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield entry.path, True
            yield from _walk(entry.path)
        elif os.path.isfile(entry.path):
            yield entry.path, False
        elif entry.is_symlink():
            _refuse_link(entry.path)
        else:
            _refuse_special(entry.path)


def _refuse_link(path: str) -> None:
    """Raises InputError for a link to a folder, to nothing, or in place of a folder."""
    target = os.readlink(path)
    if os.path.isfile(path):
        raise InputError(f"{path}: expected a folder, found a link to a file, {target}")
    if os.path.isdir(path):
        real = os.path.realpath(path)
        raise InputError(
            f"{path}: a link to a folder, which DVC does not follow, so that it would "
            "not notice a change: copy the folder, or link its files: "
            f"rm '{path}' && cp -rs '{real}' '{path}'"
        )
    if os.path.exists(path):
        _refuse_special(path)
    raise InputError(f"{path}: a broken link to {target}: delete it")


def _refuse_special(path: str) -> None:
    problem = "a FIFO, socket or device: expected files and folders only"
    raise InputError(f"{path}: {problem}")


def _files_hashed(source_dir: Path, root: Path) -> set[str] | None:
    """Returns the paths in `root` that DVC hashes as part of `source_dir`.

    Returns:
      Paths relative to `root`, or None if there is no DVC repository.
    """
    ignore = _dvc_ignore()
    if ignore is None:
        return None
    from dvc.fs import localfs

    top = os.path.abspath(source_dir)
    names = root.relative_to(source_dir).parts
    path = os.path.join(top, *names)
    hashed = set()
    # Starts from the same folder as DVC, since rules in .dvcignore are read on the way.
    for folder, folders, files in ignore.walk(localfs, top):
        if folder == path or folder.startswith(path + os.sep):
            relative = folder[len(path) + 1 :]
            hashed.update(os.path.join(relative, file) for file in files)
        else:  # On the way to `root`: does not walk through other datasets.
            depth = len(Path(folder).relative_to(top).parts)
            folders[:] = [name for name in folders if name == names[depth]]
    return hashed


def _rule(path: Path) -> str:
    """Returns the rule by which DVC ignores a path, in parentheses, if it is known."""
    if ignore := _dvc_ignore():
        for info in ignore.check_ignore(str(path)).pattern_infos:
            if info.file_info.startswith("in sub_repo"):
                return " (it is in another DVC repository, a folder with .dvc)"
            if info.file_info:
                return f" ({info.file_info})"
    return ""


def _dvc_ignore() -> "DvcIgnoreFilter | None":
    """Returns DVC's filter of what it ignores, or None outside of a DVC repository."""
    folder = Path.cwd()
    if not any((parent / ".dvc").is_dir() for parent in [folder, *folder.parents]):
        return None
    # Imported here because it takes time.
    from dvc.exceptions import DvcException
    from dvc.fs import localfs
    from dvc.ignore import DvcIgnoreFilter
    from dvc.repo import Repo

    try:
        return DvcIgnoreFilter(localfs, Repo.find_root())
    except DvcException:
        return None
