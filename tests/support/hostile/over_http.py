"""Rows as requests of POST /emails."""

import base64
from collections.abc import Iterator
from typing import Any

from tests.support.hostile.requests import EMAIL
from tests.support.hostile.row import Hostile

__all__ = ["ADDRESS_FIELDS", "emails"]

ADDRESS_FIELDS = ("from", "to", "cc", "bcc", "reply_to")


def emails(row: Hostile) -> Iterator[tuple[str, dict[str, Any]]]:
    """Emails that carry the row's value: (the field that a refusal names, the email). One each, but
    for mailboxes: an accepted one in `to`, a refused one in every field of addresses."""
    if row.place == "mailbox":
        for field in ADDRESS_FIELDS if row.result is None else ("to",):
            yield field, {**EMAIL, field: row.value if field == "from" else [row.value]}
        return
    field, changes = _changes(row)
    yield field, {**EMAIL, **changes}


def _changes(row: Hostile) -> tuple[str, dict[str, Any]]:
    value = row.value
    match row.place:
        case "name":
            return "from", {"from": f"{value} <sender@example.test>"}
        case "quoted_name":
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            return "from", {"from": f'"{escaped}" <sender@example.test>'}
        case "subject":
            return "subject", {"subject": value}
        case "header_name":
            return "headers", {"headers": {value: "b"}}
        case "header_value":
            return "headers", {"headers": {"X-Note": value}}
        case "tag":
            return "tags", {"tags": [{"name": "kind", "value": value}]}
        case "metadata":
            return "metadata", {"metadata": {"k": value}}
        case "body":
            return "text", {"text": value, "html": value}
        case "idempotency_key":
            return "", {}
        case place:
            return "attachments", {"attachments": [_file(place, value)]}


def _file(place: str, value: str) -> dict[str, str]:
    file = {"filename": "a.bin", "content": "SGVsbG8="}
    match place:
        case "bytes":
            return {**file, "content": base64.b64encode(value.encode("latin-1")).decode()}
        case "content" | "filename" | "content_type" | "content_id":
            return {**file, place: value}
        case _:
            raise AssertionError(f"no such place: {place}")
