"""What the clients and the nemesis did: one JSON line an event, written before it happens."""

import json
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["History"]


class History:
    """Lines in `path`, which lies outside the tested disk, and the same events in memory."""

    def __init__(self, path: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, kind: str, **fields: Any) -> None:
        """`kind`: invoke, ok (acknowledged), fail (refused), info (unknown) or fault."""
        event = {"at": round(time.monotonic(), 6), "kind": kind, **fields}
        with self._lock:
            self.events.append(event)
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()
