"""A server that delivers straight to MX hosts of the test's own: knot names them, they listen on
loopback addresses, all on one port."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.house import House
from tests.support.knot import Knot
from tests.support.stage import serving

__all__ = ["delivering", "free_port", "mx", "theirs"]

CONNECT_S, GREET_S = 2.0, 2.0


@contextmanager
def delivering(
    folder: Path,
    zones: Mapping[str, str | None],
    settings: Mapping[str, str] | None = None,
    *,
    processes: int = 1,
) -> Iterator[tuple[House, Knot]]:
    """A whole server whose DNS are these zones (see Knot). It has no relay yet; see `mx`."""
    dns = folder / "dns"
    dns.mkdir()
    with Knot(dns, zones) as knot:
        own = {
            "EVERPOST_DNS_SERVERS": "127.0.0.1",
            "EVERPOST_DNS_PORT": str(knot.port),
            "EVERPOST_DNS_TIMEOUT_S": "0.5",
            "EVERPOST_DELIVERY_MX_CONNECT_S": str(CONNECT_S),
            "EVERPOST_DELIVERY_MX_GREET_S": str(GREET_S),
            **(settings or {}),
        }
        with serving(folder, own, processes=processes) as house:
            yield house, knot


def free_port() -> int:
    """A port that nobody listens on, on any address."""
    with socket.socket() as free:
        free.bind(("0.0.0.0", 0))
        port: int = free.getsockname()[1]
    return port


def mx(port: int, **fields: Any) -> dict[str, Any]:
    """Fields of a relay that delivers to MX hosts on this port, on this machine too."""
    return {"url": "mx", "port": port, "allow_private": True, **fields}


def theirs(outcome: Mapping[str, Any], *, phase: str) -> None:
    """A deferral in this phase that is the destination's, not the relay's."""
    assert (outcome["type"], outcome["phase"]) == ("deferred", phase), outcome
    assert (outcome["speaker"], outcome["relay_fault"]) == ("destination", False), outcome
