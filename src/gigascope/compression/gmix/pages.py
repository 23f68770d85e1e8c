"""A long run of bytes of which parts are read by whole pages, each checked when it is read; the last ones are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

# Bytes that are checked, and read, as a whole.
PAGE = 1 << 15
# Pages that are kept: neighbouring bricks share them.
KEPT = 32


class Pages:
    """Parts of `size` bytes.

    Parameters
    ----------
    size : of the whole
    fetch : reads and checks the bytes from one place to another, of one page
    """

    def __init__(self, size: int, fetch: Callable[[int, int], bytes]) -> None:
        self.size = size
        self._fetch = fetch
        self._kept: OrderedDict[int, bytes] = OrderedDict()

    def part(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`."""
        if start >= stop:
            return b""
        first = start // PAGE
        pages = [self._page(page) for page in range(first, -(-stop // PAGE))]
        return b"".join(pages)[start - first * PAGE : stop - first * PAGE]

    def _page(self, page: int) -> bytes:
        if page in self._kept:
            self._kept.move_to_end(page)
            return self._kept[page]
        data = self._fetch(page * PAGE, min((page + 1) * PAGE, self.size))
        self._kept[page] = data
        if len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return data
