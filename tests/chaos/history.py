"""What the clients and the nemesis did: one JSON line an event, written before it happens."""

import json
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["History"]


class History:
    """Lines in `path`, which lies outside the tested disk, and the same events in memory.

    `invoke` (each try of an operation; the first with `messages`, lists of elements), then `ok`
    (acknowledged; `ids`, one a message), `fail` (refused; `status`) or `info` (unknown; `why`), all
    with `key`, the operation's name. `op` is `cancel` or `get` where it acts on what was there
    before, `of`. A `fault` has a `name`. `at` is monotonic seconds, as in the sinks' journals.
    `acknowledged`: so many messages so far. `op` is `repeat` for what was acknowledged before.
    """

    def __init__(self, path: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self.acknowledged = 0
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, kind: str, **fields: Any) -> None:
        """`kind`: invoke, ok, fail, info or fault."""
        event = {"at": round(time.monotonic(), 6), "kind": kind, **fields}
        with self._lock:
            if fields.get("op") != "repeat":
                self.acknowledged += len(fields.get("ids", ()))
            self.events.append(event)
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()

    def close(self) -> None:
        self._file.close()
