"""`everpost relays test`: follows one message to its first attempt, and shows all of it."""

import time
from collections.abc import Mapping
from typing import Any

import click

from everpost.cli.client import Api, path_of
from everpost.cli.exits import FAILED
from everpost.cli.message import reply_text, settled
from everpost.cli.show import Printer
from everpost.clock import SystemClock

__all__ = ["try_relay"]


def try_relay(api: Api, out: Printer, id_: str, *, deadline_s: float, poll_s: float) -> None:
    """Exit code 0 only when it was delivered."""
    row = _tried(api, id_, deadline_s=deadline_s, poll_s=poll_s)
    if out.as_json:
        out.json({"id": id_, **row})
    else:
        _show(out, id_, row)
    if row.get("status") != "delivered":
        click.get_current_context().exit(FAILED)


def _tried(api: Api, id_: str, *, deadline_s: float, poll_s: float) -> dict[str, Any]:
    """The recipient once there was an attempt, or as it is at the deadline."""
    clock = SystemClock()
    until = clock.monotonic() + deadline_s
    while True:
        row = dict((api.get(path_of("emails", id_, "recipients")).get("data") or [{}])[0])
        left = until - clock.monotonic()
        if settled(row) or row.get("attempts") or left <= 0:
            return row
        time.sleep(min(poll_s, left))


def _show(out: Printer, id_: str, row: Mapping[str, Any]) -> None:
    out.fields({"message": id_, "recipient": row.get("address"), "status": row.get("status")})
    attempts = row.get("attempts")
    if not isinstance(attempts, list) or not attempts:
        out.line("No attempt yet; look again with `everpost status MESSAGE`.")
        return
    attempt = attempts[-1]
    tls = attempt.get("tls")
    timings = attempt.get("timings")
    out.fields(
        {
            "relay": attempt.get("relay"),
            "host": attempt.get("host"),
            "peer": attempt.get("peer"),
            "tls": ", ".join(f"{k} {v}" for k, v in tls.items() if v is not None)
            if isinstance(tls, Mapping)
            else "none",
            "outcome": _outcome(attempt).get("type"),
            "phase": _outcome(attempt).get("phase"),
            "answer": reply_text(attempt),
            "timings": ", ".join(f"{name} {ms:.1f} ms" for name, ms in timings.items())
            if isinstance(timings, Mapping)
            else None,
        }
    )


def _outcome(attempt: Mapping[str, Any]) -> Mapping[str, Any]:
    found = attempt.get("outcome")
    return found if isinstance(found, Mapping) else {}
