"""When a relay is probed, and in whose name. Pure.

An open circuit is tried at its `until`, since that is its only way back. A healthy relay is tried
where real mail says nothing of it. No relay ever gets more than one attempt an interval, whoever
makes it.
"""

from collections.abc import Iterable

import msgspec

from everpost.model.health import CircuitState, Health
from everpost.model.relay import Relay, RelayKind, RelayState
from everpost.store.interface import DomainRow

__all__ = ["Seen", "may_probe", "next_probe", "not_ahead", "sender_for"]

_SPREAD = 0.5
"""Of an interval: probes of many relays are spread over that much of it, from 3/4 on."""

_LATE = 0.1
"""An open circuit's `until` is passed by up to this part of its wait: relays that fell together
need not be tried together."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a relay, over all processes. Times in milliseconds: `since`, when somebody
    began to look; `worked_at`, when real mail last went through; `probed_at`, the last probe, and
    `refused`, whether it found the relay out of order. `sessions` are open now. `jitter` is drawn
    anew with every probe, from 0 to 1."""

    relay: Relay
    health: Health | None = None
    sessions: int = 0
    since: int = 0
    worked_at: int | None = None
    probed_at: int | None = None
    refused: bool = False
    jitter: float = 0.5


def not_ahead(seen: Seen, *, now: int) -> Seen:
    """The same where a clock that was set back has left moments that are yet to come: nothing
    waits for them (I22)."""
    health = seen.health
    if health is not None and health.since > now:
        ahead = health.since - now
        until = None if health.until is None else health.until - ahead
        health = msgspec.structs.replace(health, since=now, until=until)
    return msgspec.structs.replace(
        seen,
        health=health,
        since=min(seen.since, now),
        worked_at=None if seen.worked_at is None else min(seen.worked_at, now),
        probed_at=None if seen.probed_at is None else min(seen.probed_at, now),
    )


def may_probe(relay: Relay) -> bool:
    """Whether there is one place to probe, and leave to do so. An MX relay has none: every
    destination is another."""
    return relay.probe and relay.kind is RelayKind.SMART_HOST and relay.state is RelayState.ENABLED


def next_probe(seen: Seen, *, every_ms: int, least_ms: int) -> int | None:
    """When to probe next; None: not as things stand. `every_ms`: where all is well, 0 for
    never; `least_ms`: between two probes of a relay that is out of order."""
    relay, health = seen.relay, seen.health
    if not may_probe(relay):
        return None
    if seen.sessions >= relay.connections:
        return None  # one more would be too many, and those that are open say enough
    if health is not None and health.state is CircuitState.OPEN:
        last = health.since if seen.probed_at is None else seen.probed_at
        earliest = health.until if health.until is not None else last
        if seen.probed_at is not None:
            earliest = max(earliest, seen.probed_at + least_ms)
        return earliest + int(_LATE * seen.jitter * max(earliest - last, 0))
    if not every_ms:
        return None
    last = max(t for t in (seen.since, seen.worked_at, seen.probed_at) if t is not None)
    if seen.refused and seen.probed_at == last:
        every_ms = min(every_ms, least_ms)  # one refusal may be an accident: ask again soon
    return last + int(every_ms * (1 - _SPREAD / 2 + _SPREAD * seen.jitter))


def sender_for(relay: Relay, domains: Iterable[DomainRow]) -> str:
    """MAIL FROM of a probe: the relay's own setting, else the postmaster of the oldest verified
    domain; empty (the null return path) while there is none."""
    if relay.probe_sender is not None:
        return relay.probe_sender
    verified = [domain for domain in domains if domain.status == "verified"]
    if not verified:
        return ""
    return f"postmaster@{min(verified, key=lambda domain: domain.id).name}"
