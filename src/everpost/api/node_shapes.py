"""Shapes of answers about the nodes of this service and the store that they share."""

from typing import Annotated

import msgspec
from msgspec import Meta

__all__ = ["NodeAnswer", "StoreAnswer"]


class NodeAnswer(msgspec.Struct):
    """One node: a machine or container that runs roles of this service."""

    name: str
    site: str
    version: str
    roles: list[str]
    address: Annotated[
        str | None, Meta(description="Where other nodes leave copies of what they accept.")
    ]
    state: Annotated[
        str,
        Meta(description="`up`, or `gone`: no sign of life for `cluster.gone_s`."),
    ]
    leader: Annotated[bool, Meta(description="Whether it does now what one node does for all.")]
    started_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    last_seen_at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    clock_skew_seconds: Annotated[float, Meta(description="Its wall clock less the database's.")]
    object: str = "node"


class StoreAnswer(msgspec.Struct):
    """How the store does, as the node that answers last saw it."""

    engine: Annotated[str, Meta(description="`sqlite` (embedded) or `postgres` (shared).")]
    reachable: bool
    writable: bool
    durable: Annotated[
        bool, Meta(description="Whether an answer of success means what the settings say.")
    ]
    problems: list[str]
    timeline: Annotated[int, Meta(description="Grows with every failover.")]
    standbys: Annotated[int, Meta(description="Synchronous standbys that are connected.")]
