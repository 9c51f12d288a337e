"""The log of a server under test, as events."""

import json
from typing import Any

from tests.support.house import House
from tests.support.waiting import wait_until

__all__ = ["logged", "wait_logged"]


def logged(house: House, event: str, **fields: object) -> list[dict[str, Any]]:
    """The events of this name with these fields, oldest first."""
    found: list[dict[str, Any]] = []
    for line in house.log.read_text(errors="replace").splitlines():
        if f'"{event}"' not in line or not line.endswith("}"):
            continue
        entry = json.loads(line)
        if entry["event"] == event and all(entry.get(k) == v for k, v in fields.items()):
            found.append(entry)
    return found


def wait_logged(
    house: House, event: str, *, count: int = 1, seconds: float = 20, **fields: object
) -> list[dict[str, Any]]:
    """Wait until there are so many."""
    wait_until(
        lambda: len(logged(house, event, **fields)) >= count,
        seconds=seconds,
        what=lambda: f"{count} times {event} {fields}\n{house.tail()}",
    )
    return logged(house, event, **fields)
