"""From rows of relays, pools, routes, streams and projects to the shapes of the answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from everpost import ids
from everpost.api.answers import timestamp
from everpost.api.relay_shapes import (
    CanaryAnswer,
    CooldownAnswer,
    DifferenceAnswer,
    LatencyAnswer,
    LimitsAnswer,
    PoolAnswer,
    ProbeAnswer,
    ProjectAnswer,
    RelayAnswer,
    RelayDetailAnswer,
    RelayStatusAnswer,
    RouteAnswer,
    StreamAnswer,
    WayAnswer,
)
from everpost.catalog import Difference, RelayView, pool_words, route_words
from everpost.delivery.warmup import plan_for
from everpost.ids import Id
from everpost.model.pool import Pool, Way
from everpost.model.relay import Relay
from everpost.monitoring.relay_status import Cooldown, RelayStatus
from everpost.store.interface import PoolRow, ProjectRow, RouteRow, StreamRow

__all__ = [
    "difference", "pool", "project", "relay", "relay_detail", "relay_status", "route", "stream",
    "way",
]  # fmt: skip

_POOL = Pool(name="", tiers=())
"""For its defaults."""


def _moment(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else timestamp(milliseconds)


def _relay_fields(view: RelayView) -> dict[str, Any]:
    began = view.row.settings.get("warmup_from")
    times = {"created_at": timestamp(view.row.created_at), "warmup_from": _moment(began)}
    return view.as_json() | times


def relay(view: RelayView) -> RelayAnswer:
    return RelayAnswer(**_relay_fields(view))


def relay_detail(view: RelayView, status: RelayStatusAnswer) -> RelayDetailAnswer:
    return RelayDetailAnswer(**_relay_fields(view), status=status)


def relay_status(status: RelayStatus, loaded: Relay, *, now: int) -> RelayStatusAnswer:
    """`loaded` is the relay with its defaults."""
    health, probe, canary = status.health, status.probe, status.canary
    latency = status.latency
    return RelayStatusAnswer(
        id=ids.text(status.relay.id),
        name=status.relay.name,
        state=status.relay.state,
        circuit=None if health is None else health.state,
        why=None if health is None else health.why or None,
        phase=None if health is None else health.phase,
        speaker=None if health is None else health.speaker,
        since=_moment(health.since or None) if health is not None else None,
        until=_moment(health.until) if health is not None else None,
        ejections=None if health is None else health.ejections,
        processes=status.processes,
        tried=status.tried,
        worked=status.worked,
        faults=status.faults,
        success_rate=status.success_rate,
        share=status.share,
        latency_ms=None
        if latency is None
        else LatencyAnswer(latency.p50, latency.p95, latency.p99),
        in_flight=status.in_flight,
        connections=status.sessions,
        limits=LimitsAnswer(
            connections=loaded.connections,
            messages_per_second=loaded.messages_per_second,
            messages_per_minute=loaded.messages_per_minute,
            messages_per_day=loaded.messages_per_day,
            warmup_today=plan_for(loaded, now),
        ),
        probe=None
        if probe is None
        else ProbeAnswer(timestamp(probe.at), probe.ok, probe.refusal, probe.phase, probe.took_ms),
        next_probe=_moment(probe.next) if probe is not None else None,
        canary=None
        if canary is None
        else CanaryAnswer(timestamp(canary.at), canary.ok, canary.why, canary.took_ms),
        cooldowns=[_cooldown(each) for each in status.cooldowns],
    )


def _cooldown(each: Cooldown) -> CooldownAnswer:
    return CooldownAnswer(each.site, timestamp(each.until), each.why, each.blocked)


def pool(row: PoolRow, relays: Mapping[Id, str]) -> PoolAnswer:
    """`relays`: names by id."""
    words = pool_words(row, relays)
    spill_below, floor = words["spill_below"], words["floor"]
    return PoolAnswer(
        id=ids.text(row.id),
        name=row.name,
        tiers=words["tiers"],
        spill_below=_POOL.spill_below if spill_below is None else spill_below,
        floor=_POOL.floor if floor is None else floor,
        created_at=timestamp(row.created_at),
    )


def route(row: RouteRow, pools: Mapping[Id, str]) -> RouteAnswer:
    """`pools`: names by id."""
    words = route_words(row, pools)
    return RouteAnswer(
        id=ids.text(row.id), name=row.name, created_at=timestamp(row.created_at), **words
    )


def way(found: Way, tiers: list[list[str]]) -> WayAnswer:
    because: Literal["route", "stream", "default"] = "stream" if found.by_stream else "default"
    return WayAnswer(found.pool, "route" if found.route else because, found.route, tiers)


def stream(row: StreamRow) -> StreamAnswer:
    return StreamAnswer(
        name=row.name,
        priority=row.priority,
        weight=row.weight,
        pool=row.pool,
        retry_first=row.retry_first_ms // 1000,
        retry_cap=row.retry_cap_ms // 1000,
        lifetime=row.lifetime_ms // 1000,
        in_doubt=row.in_doubt.value,
        durability=row.durability,
    )


def project(row: ProjectRow) -> ProjectAnswer:
    return ProjectAnswer(
        row.id, row.name, row.weight, row.sandbox, timestamp(row.created_at), row.durability
    )


def difference(found: Sequence[Difference], *, applied: bool) -> DifferenceAnswer:
    return msgspec.convert(
        {"data": found, "applied": applied}, DifferenceAnswer, from_attributes=True
    )
