"""What the disk answers, in words: full, read-only, forbidden; and removing what a killed job left behind."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gigascope.errors import UserError

_NO_SPACE = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the file system or the job's limit allows",
}
_NO_ACCESS = {
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "the file system does not permit this",
}


@contextmanager
def disk_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn a full, read-only or forbidden disk under `path` into a UserError; other errors pass unchanged.

    Parameters
    ----------
    path : what is being written, named in the message unless the system names a file itself
    needed : bytes that it takes uncompressed, if known
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            wanted = f", {size_text(needed)} needed before compression" if needed else ""
            what = f"{_NO_SPACE[error.errno]} ({size_text(free_bytes(path))} free{wanted})."
            raise UserError(what, where=path, do="Free some space or choose another results folder.") from error
        if error.errno in _NO_ACCESS:
            what = f"cannot be written: {_NO_ACCESS[error.errno]}."
            do = "Choose a results folder that you may write to."
            raise UserError(what, where=error.filename or path, do=do) from error
        raise


def free_bytes(path: Path) -> int:
    """Bytes that the user may still write under `path`, or under its nearest parent that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def size_text(n_bytes: int) -> str:
    """`n_bytes` in the largest unit that leaves a number above 1, with one decimal."""
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def sweep_partial(folder: Path) -> list[Path]:
    """Remove the `*.partial` files that killed writers left under `folder`; returns what was removed."""
    stray = [Path(root) / name for root, _, names in os.walk(folder) for name in names if name.endswith(".partial")]
    for path in stray:
        path.unlink(missing_ok=True)
    return stray


def remove(path: Path) -> None:
    """Delete a file or a folder with all in it; one that is already gone is no error."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    while path.is_dir():
        # another process may be sweeping the same trash
        with suppress(FileNotFoundError):
            shutil.rmtree(path)
