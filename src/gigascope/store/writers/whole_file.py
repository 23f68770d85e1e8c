"""A file that appears whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from gigascope.store.disk import disk_errors


@contextmanager
def whole_file(path: Path, needed: int | None = None) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it takes the name `path` on leaving, and is removed on an error.

    Parameters
    ----------
    needed : bytes it will take, for the message when the disk is full

    Raises
    ------
    UserError : the disk is full or must not be written to
    """
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    with disk_errors(path, needed):
        try:
            yield partial
            os.replace(partial, path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno is None:  # numpy's tofile: "n requested and m written", without the reason
                raise OSError(errno.ENOSPC, str(error), str(path)) from error
            raise
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a small text file, UTF-8 with plain line ends.

    Raises
    ------
    UserError : the disk is full or must not be written to
    """
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
