"""The relays a node knows, read from its store's file without changing it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everpost.cli.doctor.network import Target
from everpost.model.relay import RelayKind
from everpost.net.addresses import is_public

__all__ = ["Relays", "relays_in", "relays_of"]


@dataclass(frozen=True, slots=True)
class Relays:
    """`targets`: the smart hosts. `sources`: public addresses that mail leaves from by the word of
    any relay; one behind a NAT says nothing of how others see us."""

    targets: tuple[Target, ...] = ()
    sources: tuple[str, ...] = ()


def relays_in(store: Path) -> Relays:
    """Relays that are not disabled; none when there is no store, or none that can be read."""
    if not store.is_file():
        return Relays()
    import apsw

    try:
        connection = apsw.Connection(str(store), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(1000)
            rows = list(
                connection.execute(
                    "SELECT host, port, settings FROM relays WHERE state <> 'disabled' ORDER BY id"
                )
            )
        finally:
            connection.close()
    except apsw.Error:
        return Relays()
    return relays_of(rows)


def relays_of(rows: Iterable[tuple[Any, ...]]) -> Relays:
    """Of rows of host, port and settings as JSON."""
    targets: list[Target] = []
    sources: list[str] = []
    for host, port, text in rows:
        settings = json.loads(text)
        sources += filter(is_public, settings.get("source", ()))
        if settings.get("kind") != RelayKind.MX:
            implicit = bool(settings.get("implicit_tls"))
            targets.append(Target(str(host), int(port), implicit_tls=implicit))
    return Relays(tuple(targets), tuple(dict.fromkeys(sources)))
