"""Files of a result folder over HTTP: byte ranges, for a browser that reads shards in pieces."""

from __future__ import annotations

from typing import Any

import tornado.web


class RangeHandler(tornado.web.StaticFileHandler):
    """Gives out files below one folder, whole or in ranges."""

    def compute_etag(self) -> str | None:
        """None: tornado would read every shard whole for it; the time of the last change serves as well."""
        return None

    def set_extra_headers(self, path: str) -> None:
        """Any page may read, and asks each time whether the file is still the same."""
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Access-Control-Expose-Headers", "Content-Range, Content-Length, Accept-Ranges")
        self.set_header("Cache-Control", "no-cache")
        self.set_header("Content-Type", "application/json" if path.endswith(".json") else "application/octet-stream")

    def options(self, *args: Any) -> None:
        """What a browser asks before a range from another address."""
        self.set_header("Access-Control-Allow-Origin", "*")
        self.set_header("Access-Control-Allow-Headers", "range")
        self.set_header("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
        self.set_status(204)
        self.finish()
