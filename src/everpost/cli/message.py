"""One message for people: its recipients, and each one's attempts with the far end's own words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from everpost.cli.show import Printer, moment
from everpost.model.states import TERMINAL

__all__ = ["attempts_table", "recipients_table", "reply_text", "settled"]

_ENDED = frozenset(state.value for state in TERMINAL)


def settled(row: Mapping[str, Any]) -> bool:
    """Whether a recipient has its end."""
    return row.get("status") in _ENDED


def recipients_table(out: Printer, rows: Sequence[Mapping[str, Any]]) -> None:
    """Address, status and the last thing that was said about it."""
    out.table(
        ["recipient", "kind", "status", "attempts", "last answer"],
        (
            [
                row.get("address"),
                row.get("kind"),
                row.get("status"),
                len(_attempts(row)),
                reply_text(_attempts(row)[-1]) if _attempts(row) else row.get("reason"),
            ]
            for row in rows
        ),
    )


def attempts_table(out: Printer, rows: Sequence[Mapping[str, Any]]) -> None:
    """Every attempt of every recipient."""
    out.table(
        ["recipient", "attempt", "at", "outcome", "relay", "tls", "answer"],
        _attempt_rows(rows),
        empty="No attempt yet.",
    )


def _attempt_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[list[object]]:
    for row in rows:
        for attempt in _attempts(row):
            tls = attempt.get("tls")
            yield [
                row.get("address"),
                attempt.get("attempt"),
                moment(attempt.get("started_at")),
                _outcome(attempt).get("type"),
                attempt.get("relay") or attempt.get("host"),
                tls.get("version") if isinstance(tls, Mapping) else "none",
                reply_text(attempt),
            ]


def _attempts(row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found = row.get("attempts")
    return found if isinstance(found, list) else []


def _outcome(attempt: Mapping[str, Any]) -> Mapping[str, Any]:
    found = attempt.get("outcome")
    return found if isinstance(found, Mapping) else {}


def reply_text(attempt: Mapping[str, Any]) -> str:
    """The far end's answer on one line, or our own reason where it gave none."""
    outcome = _outcome(attempt)
    reply = outcome.get("reply")
    if not isinstance(reply, Mapping):
        return str(outcome.get("reason") or "")
    parts = (reply.get("code"), reply.get("enhanced"), reply.get("text"))
    return " ".join(" / ".join(str(part).split("\n")) for part in parts if part)
