"""How each relay does, over all processes: what they noted, put together. Pure.

What nobody has noted is None, never a zero: an idle relay is not one that fails.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from everpost.ids import Id, text
from everpost.model.health import CircuitState, Health, Standing
from everpost.store.interface import Note, RelayRow

__all__ = ["KINDS", "Canary", "Cooldown", "Latency", "Probe", "RelayStatus", "relay_statuses"]

KINDS = ("health", "report", "probe", "canary", "cooldown")
"""The notes that `relay_statuses` reads."""

_VIEWS = ("health", "probe")

_T = TypeVar("_T")


class Probe(msgspec.Struct, frozen=True):
    """The last look without mail. `at` and `next` in milliseconds since 1970; `next` None: none is
    planned."""

    at: int
    ok: bool
    refusal: str | None = None
    phase: str | None = None
    took_ms: float | None = None
    next: int | None = None


class Canary(msgspec.Struct, frozen=True):
    """The last message to a mailbox of one's own: whether it came."""

    at: int
    ok: bool
    why: str | None = None
    took_ms: float | None = None


class Cooldown(msgspec.Struct, frozen=True):
    """A destination's site that gets nothing through this relay until `until`."""

    site: str
    until: int
    why: str
    blocked: bool = False


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds of whole transactions, in the process where they are highest."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class RelayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One relay. `health` None: nobody noted anything of late. `processes` report about it; the
    counts are theirs, of the last minute, and None where there is no report. `share`: its part of
    all transactions tried."""

    relay: RelayRow
    health: Health | None
    processes: int
    tried: int | None = None
    worked: int | None = None
    faults: int | None = None
    success_rate: float | None = None
    share: float | None = None
    in_flight: int | None = None
    sessions: int | None = None
    latency: Latency | None = None
    probe: Probe | None = None
    canary: Canary | None = None
    cooldowns: tuple[Cooldown, ...] = ()


def relay_statuses(
    relays: Sequence[RelayRow], notes: Iterable[Note], *, now: int
) -> list[RelayStatus]:
    """In the relays' order. Notes of a process of another release that cannot be read are passed
    over; of two notes on one thing the later one holds, as it does of what two sites see of a
    relay."""
    told = {(note.kind, _subject(note)): note for note in notes if note.expires_at > now}
    standings: dict[Id, list[Standing]] = {}
    for note in told.values():
        if note.kind == "report":
            for standing in _read(note.data.get("relays"), list[Standing]) or ():
                standings.setdefault(standing.relay, []).append(standing)
    tried = sum(each.tried for found in standings.values() for each in found)
    return [_status(relay, told, standings.get(relay.id, []), tried, now) for relay in relays]


def _subject(note: Note) -> str:
    """What it is about: a relay, where the key says also from which site it was seen."""
    return note.key.partition("/")[0] if note.kind in _VIEWS else note.key


def _status(
    relay: RelayRow,
    told: Mapping[tuple[str, str], Note],
    standings: Sequence[Standing],
    all_tried: int,
    now: int,
) -> RelayStatus:
    key = text(relay.id)
    health = _noted(told, "health", key, Health)
    probe = _noted(told, "probe", key, Probe)
    if health is None and (standings or (probe is not None and probe.ok)):
        # A circuit is noted when it changes: one that works and was never noted is closed.
        health = Health(relay=relay.id, state=CircuitState.CLOSED)
    status = RelayStatus(
        relay=relay,
        health=health,
        processes=len(standings),
        probe=probe,
        canary=_noted(told, "canary", key, Canary),
        cooldowns=tuple(_cooldowns(relay.id, told, now)),
    )
    if not standings:
        return status
    tried = sum(each.tried for each in standings)
    worked = sum(each.worked for each in standings)
    return msgspec.structs.replace(
        status,
        tried=tried,
        worked=worked,
        faults=sum(each.faults for each in standings),
        success_rate=worked / tried if tried else None,
        share=tried / all_tried if all_tried else None,
        in_flight=sum(each.in_flight for each in standings),
        sessions=sum(each.sessions for each in standings),
        latency=_latency(standings),
    )


def _latency(standings: Sequence[Standing]) -> Latency | None:
    found: dict[str, float] = {}
    for standing in standings:
        for name in ("p50", "p95", "p99"):
            if name in standing.latency_ms:
                found[name] = max(standing.latency_ms[name], found.get(name, 0.0))
    return Latency(**found) if found else None


def _cooldowns(relay: Id, told: Mapping[tuple[str, str], Note], now: int) -> Iterator[Cooldown]:
    """Those that last, by site."""
    for (kind, key), note in sorted(told.items()):
        owner, _, site = key.partition("/")
        if kind == "cooldown" and owner == relay.hex():
            known = {"site": site, "why": "", **note.data}
            cooldown = _read(known, Cooldown)
            if cooldown is not None and cooldown.until > now:
                yield cooldown


def _noted(told: Mapping[tuple[str, str], Note], kind: str, key: str, type_: type[_T]) -> _T | None:
    note = told.get((kind, key))
    return None if note is None else _read(note.data, type_)


def _read(data: Any, type_: type[_T]) -> _T | None:
    try:
        return msgspec.convert(data, type_)
    except msgspec.ValidationError:
        return None
