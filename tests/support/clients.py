"""Clients below HTTP libraries: what exactly goes over the wire, when they hang up, and what they
know afterwards."""

import json
import socket
import struct
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tests.support.far_end import FarEnd
from tests.support.house import House
from tests.support.waiting import wait_until

__all__ = ["copies", "drain", "email", "exchange", "hang_up", "request"]


def email(name: str, *more: str, **fields: object) -> dict[str, object]:
    """An email to `name` and `more`, whose subject is `name`."""
    return {
        "from": "a@example.test",
        "to": [f"{each}@receiver.test" for each in (name, *more)],
        "subject": name,
        "text": "x\n",
        **fields,
    }


def request(
    house: House, body: Any, *, path: str = "/emails", key: str | None = None, chunk: int = 0
) -> bytes:
    """A whole POST as bytes; the body in chunks of so many bytes, where that is given."""
    data = json.dumps(body).encode()
    head = [
        f"POST {path} HTTP/1.1",
        "Host: a",
        f"Authorization: Bearer {house.key}",
        "Content-Type: application/json",
    ]
    if key is not None:
        head.append(f"Idempotency-Key: {key}")
    if chunk:
        head.append("Transfer-Encoding: chunked")
        pieces = [data[at : at + chunk] for at in range(0, len(data), chunk)]
        data = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in [*pieces, b""])
    else:
        head.append(f"Content-Length: {len(data)}")
    return "\r\n".join([*head, "", ""]).encode() + data


def exchange(
    house: House, data: bytes, *, port: int = 0, timeout: float = 30
) -> tuple[int, Mapping[str, Any]] | None:
    """Send a request; its answer's status and JSON, or None when the connection breaks first."""
    try:
        with socket.create_connection((house.host, port or house.port), timeout=timeout) as sock:
            sock.sendall(data)
            answer = b""
            while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
                piece = sock.recv(65536)
                if not piece:
                    return None
                answer += piece
    except OSError:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head[9:12]), json.loads(body)


def hang_up(sock: socket.socket, *, reset: bool = False) -> None:
    """Close; with a reset, which drops what has not been read, if wished (socket(7), SO_LINGER)."""
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def drain(house: House, seconds: float = 60) -> dict[str, int]:
    """Wait until all that was accepted has ended; recipients by state."""
    states: dict[str, int] = {}

    def empty() -> bool:
        nonlocal states
        answer = house.get("/status")
        states = answer.json["states"] if answer.status == 200 else {"queued": 1}
        return not any(states.get(each, 0) for each in ("queued", "claimed", "held"))

    wait_until(empty, seconds=seconds, what=lambda: f"the queue to drain: {states}\n{house.tail()}")
    return states


def copies(far: FarEnd) -> Counter[str]:
    """How many copies came to each recipient, by local part."""
    return Counter(to.partition("@")[0] for mail in far.complete for to in mail.recipients)
