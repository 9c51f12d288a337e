"""Answers as values: status, JSON bytes, headers. What every answer of this door has in common."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from everpost.api.asgi import Scope, Send

__all__ = ["ADMITTED", "ANSWER", "JSON", "Answer", "encode", "problem", "send", "timestamp"]

JSON = b"application/json"

_FIXED = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]
"""Answers hold personal data and keys, so no cache may keep them (RFC 9111 §5.2.2.5)."""

ANSWER = "everpost.answer"
"""The extension in ASGI's scope by which our listener takes a whole answer at once: a coroutine
function of (status, headers, body)."""

ADMITTED = "everpost.admitted"
"""In the same place, where our listener asks admission: None when this is no email that it asked
about, 0.0 while an admitted email's body arrives, then what `Admission.enter` gave. Its presence
says that body bytes count as held from their arrival on."""

_NONE: dict[str, Any] = {}

_encoder = msgspec.json.Encoder()
encode = _encoder.encode


class Answer(msgspec.Struct, frozen=True, gc=False):
    """One HTTP answer. `headers` come beside content type, length and the fixed ones."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: Sequence[tuple[bytes, bytes]] = ()


def problem(
    status: int, name: str, message: str, *, headers: Sequence[tuple[bytes, bytes]] = ()
) -> Answer:
    """An error in Resend's shape (COMPAT §5.3)."""
    body = encode({"statusCode": status, "name": name, "message": message})
    return Answer(status, body, headers=headers)


def timestamp(milliseconds: int) -> str:
    """`2026-11-23T05:55:13.123Z`."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"


async def send(answer: Answer, scope: Scope, sender: Send) -> None:
    """Write one answer to an ASGI server; in one piece where it is ours."""
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", b"%d" % len(answer.body)),
        *_FIXED,
        *answer.headers,
    ]
    whole = scope.get("extensions", _NONE).get(ANSWER)
    if whole is not None:
        await whole(answer.status, headers, answer.body)
        return
    await sender({"type": "http.response.start", "status": answer.status, "headers": headers})
    await sender({"type": "http.response.body", "body": answer.body})
