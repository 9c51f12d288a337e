"""The relays a node knows, read from its store's file without changing it."""

import json
from pathlib import Path

from everpost.cli.doctor.network import Target

__all__ = ["relays_in"]


def relays_in(store: Path) -> tuple[Target, ...]:
    """Relays that are not disabled; none when there is no store, or none that can be read."""
    if not store.is_file():
        return ()
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
        return ()
    return tuple(
        Target(str(host), int(port), implicit_tls=bool(json.loads(settings).get("implicit_tls")))
        for host, port, settings in rows
    )
