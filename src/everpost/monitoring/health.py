"""Whether this node should get requests: decided from facts by a pure function.

Only what makes accepting impossible takes a node out of the load balancer. A missing relay or an
odd clock is shown and does not: mail that is accepted now and sent later is what Everpost is for.
"""

from collections.abc import Awaitable, Callable

import msgspec

from everpost import telemetry
from everpost.clock import Clock

__all__ = ["Check", "Facts", "Health", "HealthLimits", "Judgement", "judge"]


class Facts(msgspec.Struct, frozen=True):
    """What was found. `free_bytes`: in the data directory's file system; `clock_off_ms`: the
    step of the wall clock that is held off, or was adopted within the last minutes."""

    store_writable: bool
    free_bytes: int
    relays: int
    sandbox: bool
    clock_off_ms: int = 0
    draining: bool = False
    disk_low: bool = False
    """New mail is refused for want of room (`Room`)."""
    store_sound: bool = True
    """The database's own pages could be read, whenever they were."""
    store_durable: bool = True
    """What it acknowledges means what the settings say."""
    store_problems: tuple[str, ...] = ()
    """In words, why it is not writable or not durable."""
    journal: bool = False
    """This node's journal takes mail while the store cannot."""


class HealthLimits(msgspec.Struct, frozen=True):
    """Where a fact becomes bad."""

    free_bytes: int = 256 * 1024 * 1024
    clock_off_ms: int = 5_000


class Check(msgspec.Struct, frozen=True):
    """One question and its answer. `required`: the node is not ready while this is not ok."""

    name: str
    ok: bool
    required: bool
    detail: str


class Judgement(msgspec.Struct, frozen=True):
    """`ready`: every required check is ok."""

    ready: bool
    checks: tuple[Check, ...]

    @property
    def failing(self) -> tuple[str, ...]:
        """Names of the required checks that are not ok."""
        return tuple(c.name for c in self.checks if c.required and not c.ok)


def judge(facts: Facts, limits: HealthLimits) -> Judgement:
    """Pure."""
    room = facts.free_bytes >= limits.free_bytes and not facts.disk_low
    steady = abs(facts.clock_off_ms) <= limits.clock_off_ms
    way = facts.relays > 0 or facts.sandbox
    checks = (
        _store(facts),
        Check(
            name="disk",
            ok=room,
            required=True,
            detail=f"{facts.free_bytes // 1_048_576} MiB free,"
            f" {limits.free_bytes // 1_048_576} MiB needed",
        ),
        Check(
            name="draining",
            ok=not facts.draining,
            required=True,
            detail="shutting down" if facts.draining else "no",
        ),
        Check(
            name="way_out",
            ok=way,
            required=False,
            detail=f"{facts.relays} relays" if facts.relays else "sandbox only" if way else "none",
        ),
        Check(
            name="clock",
            ok=steady,
            required=False,
            detail=f"{facts.clock_off_ms} ms off",
        ),
    )
    return Judgement(ready=all(c.ok for c in checks if c.required), checks=checks)


def _store(facts: Facts) -> Check:
    """A store that is away or not safe keeps a node out only where no journal takes the mail."""
    ok = facts.store_writable and facts.store_sound and facts.store_durable
    if not facts.store_sound:
        detail = "damaged: restore a backup"
    elif not facts.store_writable:
        detail = "cannot be written"
    else:
        detail = "writable" if facts.store_durable else "not safe"
    if facts.store_problems and not ok:
        detail = f"{detail}: {'; '.join(facts.store_problems)}"
    taken = facts.journal and facts.store_sound and not ok
    return Check(
        name="store",
        ok=ok,
        required=not taken,
        detail=f"{detail} (the journal takes mail)" if taken else detail,
    )


class Health:
    """Gathers facts, at most once in `fresh_for` seconds however often it is asked."""

    def __init__(
        self,
        gather: Callable[[], Awaitable[Facts]],
        clock: Clock,
        *,
        limits: HealthLimits | None = None,
        fresh_for: float = 1.0,
    ) -> None:
        self._gather = gather
        self._clock = clock
        self._limits = limits or HealthLimits()
        self._fresh_for = fresh_for
        self._last: Judgement | None = None
        self._last_at = 0.0
        self._draining = False

    def drain(self) -> None:
        """From now on this node says that it is not ready."""
        self._draining = True
        self._last = None

    async def judgement(self) -> Judgement:
        """What holds now. A gathering that fails means that the store cannot be reached."""
        now = self._clock.monotonic()
        if self._last is None or now - self._last_at >= self._fresh_for:
            try:
                facts = await self._gather()
            except Exception as error:  # whatever broke, the node is not ready
                telemetry.event("health.unknown", error=repr(error))
                facts = Facts(store_writable=False, free_bytes=0, relays=0, sandbox=False)
            if self._draining:
                facts = msgspec.structs.replace(facts, draining=True)
            self._last, self._last_at = judge(facts, self._limits), now
        return self._last
