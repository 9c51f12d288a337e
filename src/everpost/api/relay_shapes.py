"""What callers get of relays, pools, routes, streams and projects: one struct an answer."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from everpost.model.health import CircuitState

__all__ = [
    "DifferenceAnswer", "PoolAnswer", "ProjectAnswer", "RelayAnswer", "RelayDetailAnswer",
    "RelayStatusAnswer", "RouteAnswer", "StreamAnswer", "WayAnswer",
]  # fmt: skip

_Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class RelayAnswer(msgspec.Struct):
    """A relay without its password. What was not said is null: its default holds."""

    id: str
    name: str
    kind: Annotated[str, Meta(description="smart_host, or mx: each destination's own hosts.")]
    host: str
    port: int
    state: str
    implicit_tls: bool
    tls: str
    username: str | None
    has_password: bool
    auth: str | None
    site: str | None
    helo: str | None
    connections: int | None
    weight: int
    eight_bit: bool
    signed_headers: list[str] | None
    source: list[str] | None
    destination_connections: int | None
    allow_private: bool | None
    created_at: _Time
    messages_per_connection: int | None
    messages_per_second: int | None
    messages_per_minute: int | None
    messages_per_day: int | None
    warmup: list[int] | None
    warmup_from: _Time | None
    probe: bool | None
    probe_sender: str | None
    object: str = "relay"


class LatencyAnswer(msgspec.Struct):
    """Milliseconds of whole transactions of the last minute, in the process where they are most."""

    p50: float | None
    p95: float | None
    p99: float | None


class ProbeAnswer(msgspec.Struct):
    """The last look without mail."""

    at: _Time
    ok: bool
    refusal: str | None
    phase: str | None
    took_ms: float | None


class CanaryAnswer(msgspec.Struct):
    """The last message to a mailbox of one's own: whether it came."""

    at: _Time
    ok: bool
    why: str | None
    took_ms: float | None


class CooldownAnswer(msgspec.Struct):
    """A destination's site that gets nothing through this relay for a while; `blocked`: it refuses
    our address."""

    site: str
    until: _Time
    why: str
    blocked: bool


class LimitsAnswer(msgspec.Struct):
    """What holds over all processes together; null: no limit."""

    connections: int
    messages_per_second: int | None
    messages_per_minute: int | None
    messages_per_day: int | None
    warmup_today: Annotated[
        int | None, Meta(description="Messages that its day plan has for today (UTC).")
    ]


class RelayStatusAnswer(msgspec.Struct):
    """How a relay does, over all processes. Null: nothing is known, which is not zero."""

    id: str
    name: str
    state: Annotated[str, Meta(description="What its operator says: enabled, draining, disabled.")]
    circuit: Annotated[
        CircuitState | None,
        Meta(description="What we found: closed, it gets mail; open, none; half_open, a little."),
    ]
    why: str | None
    phase: str | None
    speaker: str | None
    since: _Time | None
    until: _Time | None
    ejections: int | None
    processes: Annotated[int, Meta(description="How many report about it now.")]
    tried: Annotated[int | None, Meta(description="Transactions of the last minute.")]
    worked: int | None
    faults: int | None
    success_rate: Annotated[float | None, Meta(description="Of those tried, from 0 to 1.")]
    share: Annotated[float | None, Meta(description="Of all relays' transactions, from 0 to 1.")]
    latency_ms: LatencyAnswer | None
    in_flight: int | None
    connections: Annotated[int | None, Meta(description="Open now.")]
    limits: LimitsAnswer
    probe: ProbeAnswer | None
    next_probe: _Time | None
    canary: CanaryAnswer | None
    cooldowns: list[CooldownAnswer]
    object: str = "relay_status"


class RelayDetailAnswer(RelayAnswer, kw_only=True):
    """A relay and how it does."""

    status: RelayStatusAnswer


class PoolAnswer(msgspec.Struct):
    """A pool."""

    id: str
    name: str
    tiers: Annotated[list[list[str]], Meta(description="Names of relays, tier by tier.")]
    spill_below: float
    floor: int
    created_at: _Time
    object: str = "pool"


class RouteAnswer(msgspec.Struct):
    """A route: it fits when all that is not null fits."""

    id: str
    name: str
    position: int
    pool: str
    project: int | None
    stream: str | None
    sender_domain: str | None
    recipient_domain: str | None
    tag: str | None
    created_at: _Time
    object: str = "route"


class WayAnswer(msgspec.Struct):
    """Which way a mail would take."""

    pool: str
    because: Annotated[
        Literal["route", "stream", "default"],
        Meta(description="Who decided: a route, the stream's own pool, or nobody."),
    ]
    route: str | None
    tiers: Annotated[
        list[list[str]], Meta(description="The pool's relays by name; empty: there are none.")
    ]
    object: str = "way"


class StreamAnswer(msgspec.Struct):
    """A stream. Times in seconds."""

    name: str
    priority: str
    weight: int
    pool: str | None
    retry_first: int
    retry_cap: int
    lifetime: int
    in_doubt: str
    durability: str | None
    object: str = "stream"


class ProjectAnswer(msgspec.Struct):
    """A project."""

    id: int
    name: str
    weight: int
    sandbox: bool
    created_at: _Time
    durability: str | None
    object: str = "project"


class FieldDifferenceAnswer(msgspec.Struct):
    """Null: not said, so the default. Of a secret only `set` or `changed`."""

    field: str
    was: Any
    now: Any


class ItemDifferenceAnswer(msgspec.Struct):
    """One thing that is made, changed or removed."""

    kind: str
    name: str
    change: Literal["added", "changed", "removed"]
    fields: list[FieldDifferenceAnswer]


class DifferenceAnswer(msgspec.Struct):
    """What is different now; with `dry_run`, what would be. Empty: all was as it should be."""

    data: list[ItemDifferenceAnswer]
    applied: bool
    object: str = "difference"
