"""What a row of the hostile-input table is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "PLACES",
    "Hostile",
    "HostileQuery",
    "HostileRequest",
    "HostileSetting",
    "HostileWire",
    "refused",
    "shown",
]

_SHOWN = 48

PLACES: Mapping[str, tuple[str, str]] = {
    "mailbox": ("to", "an address in from, to, cc, bcc or reply_to"),
    "name": ("from", "a display name before `<a@b>`, without quotes"),
    "quoted_name": ("from", "a display name, properly quoted"),
    "subject": ("subject", "the subject"),
    "header_name": ("headers", "the name of a header of the caller's own"),
    "header_value": ("headers", "the value of such a header"),
    "filename": ("attachments", "the name of an attachment"),
    "content_id": ("attachments", "the content id of an attachment"),
    "content_type": ("attachments", "the type of an attachment"),
    "content": ("attachments", "the base64 of an attachment"),
    "bytes": ("attachments", "the bytes of an attachment, one character an octet"),
    "tag": ("tags", "the value of a tag"),
    "metadata": ("metadata", "a value of metadata"),
    "body": ("text", "the text and the HTML"),
    "idempotency_key": ("", "the Idempotency-Key header"),
}
"""Place: the field of an HTTP request that a refusal names, and what the place is."""


def shown(value: str | bytes) -> str:
    """A value for test names and pages: ASCII, short."""
    text = value if isinstance(value, str) else value.decode("latin-1")
    if len(text) <= _SHOWN:
        return f"{value!a}"
    unit = "characters" if isinstance(value, str) else "octets"
    return f"{value[:32]!a}… {len(value)} {unit}"


@dataclass(frozen=True, slots=True)
class Hostile:
    """One value. `place` is where it is put, a key of PLACES. `result` None: it is refused, by HTTP
    with `status` and the place's field; else it is accepted and becomes this."""

    row: str
    place: str
    value: str
    result: str | None = None
    status: int = 422

    def __str__(self) -> str:
        return f"{self.row}-{self.place}-{shown(self.value)}"


@dataclass(frozen=True, slots=True)
class HostileRequest:
    """A whole body of POST /emails. `status` 200: it is accepted. Else `said` stands in the
    refusal's message: the field in backticks, or what is wrong where no field can be named."""

    row: str
    name: str
    body: bytes
    status: int
    said: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.row}-{self.name}"


@dataclass(frozen=True, slots=True)
class HostileQuery:
    """The query of a list. `fields` None: 200, it means nothing to us; else 422, and the message
    names one of them in backticks, or speaks of the query when there are none."""

    row: str
    query: str
    fields: tuple[str, ...] | None

    def __str__(self) -> str:
        return f"{self.row}-{shown(self.query)}"


@dataclass(frozen=True, slots=True)
class HostileWire:
    """Bytes on a TCP connection to the HTTP port. They get one answer with one of `statuses`, and
    the connection ends."""

    row: str
    name: str
    data: bytes
    statuses: tuple[int, ...] = (400,)

    def __str__(self) -> str:
        return f"{self.row}-{self.name}"


@dataclass(frozen=True, slots=True)
class HostileSetting:
    """A value of a field of `POST path`, in a body that would pass otherwise: 422, naming it."""

    row: str
    path: str
    field: str
    value: Any

    def __str__(self) -> str:
        return f"{self.row}-{self.path}-{self.field}-{shown(json.dumps(self.value))}"


def refused(row: str, place: str, *values: str, status: int = 422) -> list[Hostile]:
    """A row each for values that are refused in one place."""
    return [Hostile(row, place, value, status=status) for value in values]
