"""How long nobody, or one client, was acknowledged, and how long no mail arrived. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tests.cluster.clients import PULSES

__all__ = ["Gap", "Outage", "accept_gap", "client_gap", "false_promises", "outages"]

_SENDS = ("send", "unkeyed", "group", "later", "batch", "unkeyed_batch")
_AFTER_S = 10.0
"""A silence that begins so long after a fault's end is no longer the fault's."""


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """`seconds` long; `at`: when it began, on the history's clock."""

    seconds: float = 0.0
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Outage:
    """What one fault did: the longest times without any acknowledgement, and without any mail
    arriving, that overlap it."""

    fault: int
    name: str
    begin: float
    end: float
    accept_s: float
    deliver_s: float
    told: Mapping[str, Any] = field(default_factory=dict)


def accept_gap(events: Iterable[Mapping[str, Any]]) -> Gap:
    """The longest time in which no client was acknowledged, from the first request to the last
    acknowledgement. As all here it looks at those alone who ask in short intervals."""
    return max(_silences(_accepted(events)), default=Gap())


def client_gap(events: Iterable[Mapping[str, Any]]) -> Gap:
    """The longest time that one client, who asks again once and then goes on to its next message,
    waited for an acknowledgement: from the first request that was not acknowledged at once."""
    asked: dict[str, float] = {}
    found = Gap()
    for event in events:
        if not _counts(event):
            continue
        client = str(event["key"]).partition("-")[0]
        if event["kind"] == "invoke":
            asked.setdefault(client, event["at"])
        elif event["kind"] == "ok":
            since = asked.pop(client, event["at"])
            found = max(found, Gap(round(event["at"] - since, 3), since))
    return found


def outages(events: Sequence[Mapping[str, Any]], taken: Iterable[float]) -> list[Outage]:
    """One for each fault that ended. `taken`: when mail arrived."""
    accepts, delivers = _silences(_accepted(events)), _silences(sorted(taken))
    begun: dict[int, Mapping[str, Any]] = {}
    found = []
    for event in events:
        if event["kind"] != "fault":
            continue
        if event["phase"] == "begin":
            begun[event["fault"]] = event
            continue
        begin, end = begun[event["fault"]]["at"], event["at"]
        told = {k: v for k, v in event.items() if k not in ("at", "kind", "phase", "fault", "name")}
        found.append(
            Outage(
                event["fault"],
                event["name"],
                begin,
                end,
                _longest(accepts, begin, end + _AFTER_S),
                _longest(delivers, begin, end + _AFTER_S),
                told,
            )
        )
    return found


def false_promises(events: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of what was asked and acknowledged while no standby was there, and not as a journal's
    (F26). An answer that says nothing of its durability says that it is replicated."""
    gone = [
        (event["gone_from"], event["gone_until"])
        for event in events
        if event["kind"] == "fault" and event["phase"] == "end" and "gone_from" in event
    ]
    asked: dict[str, float] = {}
    found = []
    for event in events:
        if event.get("op") not in _SENDS:
            continue
        since = asked.setdefault(event["key"], event["at"])
        journalled = any("journal" in each for each in event.get("durability", ()))
        alone = any(begin < since and event["at"] < end for begin, end in gone)
        if event["kind"] == "ok" and alone and not journalled:
            found.append(event["key"])
    return found


def _counts(event: Mapping[str, Any]) -> bool:
    """Of a client that asks every moment. Others rest for seconds after a batch."""
    number = str(event.get("key", "")).partition("-")[0].removeprefix("c")
    return event.get("op") == "send" and number.isdigit() and int(number) >= PULSES


def _accepted(events: Iterable[Mapping[str, Any]]) -> list[float]:
    """Times of acknowledgements, after the time of the first request."""
    times: list[float] = []
    for event in events:
        if _counts(event) and (event["kind"] == "ok" or not times):
            times.append(event["at"])
    return times


def _silences(times: Sequence[float]) -> list[Gap]:
    return [Gap(round(after - before, 3), before) for before, after in pairwise(times)]


def _longest(silences: Iterable[Gap], begin: float, end: float) -> float:
    """Of those that touch the time, without what lay before it."""
    return max(
        (
            round(gap.at + gap.seconds - max(gap.at, begin), 3)
            for gap in silences
            if gap.at < end and gap.at + gap.seconds > begin
        ),
        default=0.0,
    )
