"""What canaries say of relays. Pure.

A canary is a message to a mailbox of our own, pinned to one relay. A relay that answered 250 and
whose canary does not arrive has lost it (F72). What the relay refused, or was never handed, says
nothing of the kind.
"""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

__all__ = ["CLEARED_AFTER", "Fate", "Flight", "Tally", "judged", "next_relay", "noted", "released"]

CLEARED_AFTER = 3
"""So many must arrive, one after the other, until a relay that lost one is believed again."""

_MISSED = 50
"""Lost ones that are still looked for, in case they are only very late."""


class Fate(StrEnum):
    """What our own record says of a canary. handed: the relay answered 250. ended: it never will
    (refused, expired, cancelled, gone)."""

    UNDER_WAY = "under_way"
    HANDED = "handed"
    ENDED = "ended"


class Flight(msgspec.Struct, frozen=True):
    """A canary that has not arrived yet: its message's id as text, and when it was accepted."""

    message: str
    at: int


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """A relay's canaries; times in milliseconds. `sent` counts those accepted here, `arrived` and
    `lost` those that the relay had answered 250. `delay_ms`: of the last one that arrived, from
    that answer (where it is on record by then, else from its accept) until it was found. `row`:
    arrived since the last loss. `waiting` and `missed` are by token."""

    sent: int = 0
    arrived: int = 0
    lost: int = 0
    row: int = 0
    last_at: int | None = None
    delay_ms: int | None = None
    lies: bool = False
    waiting: Mapping[str, Flight] = {}
    missed: tuple[str, ...] = ()

    @property
    def looked_for(self) -> tuple[str, ...]:
        """The tokens to look for in the mailbox."""
        return (*self.waiting, *self.missed)


def noted(tally: Tally) -> dict[str, Any]:
    """A tally as a note: all of it, and once there is a verdict what people see (as
    `relay_status.Canary` reads it)."""
    data: dict[str, Any] = msgspec.to_builtins(tally)
    if tally.arrived or tally.lost:
        known = tally.arrived + tally.lost
        why = f"{tally.lost} of {known} that it accepted did not arrive" if tally.lies else None
        data |= {"at": tally.last_at, "ok": not tally.lies, "why": why, "took_ms": tally.delay_ms}
    return data


def next_relay(
    relays: Sequence[bytes], tallies: Mapping[bytes, Tally], *, now: int, every_ms: int
) -> bytes | None:
    """Whose turn it is, if anybody's: each relay once in `every_ms`, one after the other, so that
    they are spread over it."""
    if not relays:
        return None
    last = {relay: tallies[relay].last_at if relay in tallies else None for relay in relays}
    newest = max((at for at in last.values() if at is not None), default=None)
    if newest is not None and now - newest < every_ms // len(relays):
        return None
    turn = min(relays, key=lambda relay: last[relay] or 0)
    at = last[turn]
    return turn if at is None or now - at >= every_ms else None


def released(tally: Tally, token: str, *, message: str, now: int) -> Tally:
    """One more was accepted."""
    return msgspec.structs.replace(
        tally,
        sent=tally.sent + 1,
        last_at=now,
        waiting={**tally.waiting, token: Flight(message, now)},
    )


def judged(
    tally: Tally,
    *,
    found: Collection[str],
    fates: Mapping[str, tuple[Fate, int]],
    now: int,
    wait_ms: int,
) -> Tally:
    """After a look into the mailbox: `found` are the tokens that were in it, `fates` says of each
    that waits what our record has, and since when."""
    arrived, lost, row = tally.arrived, tally.lost, tally.row
    delay, lies = tally.delay_ms, tally.lies
    waiting, missed = dict(tally.waiting), list(tally.missed)
    for token in tally.missed:
        if token in found:  # late, not lost
            missed.remove(token)
            arrived, lost = arrived + 1, lost - 1
    for token, flight in tally.waiting.items():
        fate, since = fates.get(token, (Fate.UNDER_WAY, flight.at))
        if token in found:
            arrived, row = arrived + 1, row + 1
            delay = max(now - since, 0)
        elif fate is Fate.HANDED and now - since >= wait_ms:
            lost, row, lies = lost + 1, 0, True
            missed.append(token)
        elif fate is not Fate.ENDED or now - since < wait_ms:
            continue
        del waiting[token]
    return msgspec.structs.replace(
        tally,
        arrived=arrived,
        lost=lost,
        row=row,
        delay_ms=delay,
        lies=lies and lost > 0 and row < CLEARED_AFTER,
        waiting=waiting,
        missed=tuple(missed[-_MISSED:]),
    )
