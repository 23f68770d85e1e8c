"""A headless Chromium that opens a page for a while: for screenshots and tests."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gigascope.errors import UserError

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Software rendering of WebGL, nothing asked of the network, no sandbox (containers forbid it).
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--hide-scrollbars",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
)


def find_chromium() -> str | None:
    """Path of a Chromium or Chrome, or none."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


def command(url: str, size: tuple[int, int], profile: Path, more: Sequence[str] = ()) -> list[str]:
    """Command line that opens `url` without a window, in a profile of its own.

    Raises
    ------
    UserError : there is no Chromium
    """
    chromium = find_chromium()
    if chromium is None:
        raise UserError(
            "there is no Chromium or Chrome on this machine.", do="Install one (Debian, Ubuntu: apt install chromium)."
        )
    return [chromium, *_FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", *more, url]


@contextmanager
def headless(url: str, size: tuple[int, int]) -> Iterator[None]:
    """Keep `url` open in a headless browser."""
    with tempfile.TemporaryDirectory(prefix="gigascope-browser-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            command(url, size, Path(profile)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
