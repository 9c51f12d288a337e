"""Whether this process takes one more email, decided from facts before its body is read.

Refused with 503 and Retry-After: when the disk has no room, when the bodies in hand fill their
budget, when as many emails are in hand as may be. That number follows the delay of accepts:
docs/decisions/0012-admission.md says why, `tests/unit/api/test_admission.py` has the simulations.
"""

import math
from collections.abc import Callable
from enum import StrEnum

import msgspec

from everpost import telemetry
from everpost.monitoring.room import Room

__all__ = ["WORDS", "Admission", "AdmissionLimits", "Reason"]

_REFUSED = telemetry.counter(
    "everpost_admission_refused_total", "Emails refused with 503 before their body was read, or "
    "when it filled the budget", ("reason",),
)  # fmt: skip
_IN_HAND = telemetry.gauge("everpost_admission_requests", "Emails being worked on, of all requests")
_LIMIT = telemetry.gauge("everpost_admission_limit", "Emails that may be worked on at once")
_BYTES = telemetry.gauge("everpost_admission_bytes", "Bytes of request bodies in memory")
_DELAY = telemetry.gauge(
    "everpost_admission_delay_seconds", "The shortest wait for an accept, of the last window"
)

_WINDOW_S = 0.25
"""Shortest time between two looks at the delay; longer when the delay is."""
_FLOOR = 32
"""Emails in hand that are always allowed: fewer would leave the store's commits empty."""
_START = 128
"""In hand at first; as TCP does, it doubles with each round of quick answers that it holds up."""
_QUICK = 0.25
"""Part of the target that is a quick answer."""
_AIM = 0.9
"""Part of the target that the next number should reach."""
_DEEPEST_CUT = 0.25
_GROW = 1.5
_HALF = 0.6
_FUTILE = 0.8
"""When about half as many in hand wait still this much as long, the wait is not theirs."""
_SETTLED_S = 300.0
"""How long that finding holds."""


class Reason(StrEnum):
    """Why an email is refused."""

    DISK = "disk"
    BYTES = "bytes"
    BUSY = "busy"


WORDS = {
    Reason.DISK: "This server's disk is nearly full. Nothing was accepted; try again later.",
    Reason.BYTES: "Too many large requests are being worked on. Nothing was accepted; try again.",
    Reason.BUSY: "Too many requests are being worked on. Nothing was accepted; try again.",
}
_RETRY_S = {Reason.DISK: (10, 30), Reason.BYTES: (1, 5), Reason.BUSY: (1, 5)}


class AdmissionLimits(msgspec.Struct, frozen=True):
    """`requests`: emails in hand at most. `body_bytes`: bodies in memory at most. `delay_s`: when
    even the quickest accept takes longer, fewer are taken in hand."""

    requests: int = 512
    body_bytes: int = 256 * 1024 * 1024
    delay_s: float = 2.0


class Admission:
    """What one process has in hand. No I/O; `now` is a monotonic clock in seconds, `chance` gives
    numbers from 0 to 1 that spread the retries."""

    __slots__ = (
        "_before", "_chance", "_due", "_full", "_held", "_least", "_now", "_patient_until", "_peak",
        "_target", "_until", "delay", "in_hand", "limit", "limits", "room",
    )  # fmt: skip

    def __init__(
        self,
        limits: AdmissionLimits,
        *,
        now: Callable[[], float],
        chance: Callable[[], float],
        room: Room | None = None,
    ) -> None:
        self.limits = limits
        self.room = room or Room(0)
        self.in_hand = 0
        self.limit = min(_START, limits.requests)
        """As many may be in hand now: from a floor up to `limits.requests`."""
        self.delay = 0.0
        self._now = now
        self._chance = chance
        self._held = 0
        self._least = math.inf
        self._peak = 0
        self._full = self._due = False
        self._until = 0.0
        self._target = limits.delay_s
        self._patient_until = 0.0
        self._before: tuple[int, float] | None = None

    # --- bytes ------------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """Bytes of request bodies in memory, or promised to a body that is arriving."""
        return self._held

    def hold(self, count: int) -> None:
        self._held += count

    def release(self, count: int) -> None:
        self._held -= count

    def has_room(self, more: int) -> bool:
        """Whether `more` bytes fit the budget."""
        return self._held + more <= self.limits.body_bytes

    # --- emails -----------------------------------------------------------------------------------

    def refusal(self, length: int = 0) -> Reason | None:
        """Why an email whose body has `length` bytes (0: not known) is not taken now, or None."""
        if self._due:
            self._adapt(self._now())
        if self.room.low:
            return Reason.DISK
        if self.in_hand >= self.limit:
            self._full = True
            return Reason.BUSY
        if self._held + length > self.limits.body_bytes:
            return Reason.BYTES
        return None

    def refuse(self, reason: Reason) -> int:
        """Count a refusal; the seconds after which to try again, another number each time, so that
        those who were refused together do not come back together."""
        _REFUSED.add(1, reason.value)
        low, high = _RETRY_S[reason]
        return low + int((high - low + 1) * self._chance())

    def enter(self) -> float:
        """An email's body is here. The moment, to be given to `leave`."""
        self.in_hand += 1
        if self.in_hand > self._peak:  # noqa: PLR1730  a call costs more, and this is every email
            self._peak = self.in_hand
        return self._now()

    def leave(self, since: float, *, accepted: int | None) -> None:
        """The email that entered at `since` has its answer. `accepted`: the bytes of its body when
        it became durable, else None: other answers say nothing about how long that takes."""
        self.in_hand -= 1
        if accepted is None:
            return
        self.room.add(accepted)
        now = self._now()
        delay = now - since
        if delay < self._least:  # noqa: PLR1730
            self._least = delay
        if now >= self._until:
            self._due = True  # the others of this commit are still to be counted
        if self._full and delay < _QUICK * self._target and self.limit < self.limits.requests:
            self.limit += 1

    def show(self) -> None:
        """Set the gauges; about once a second."""
        _IN_HAND.set(self.in_hand)
        _LIMIT.set(self.limit)
        _BYTES.set(self._held)
        _DELAY.set(self.delay)

    # --- how many ---------------------------------------------------------------------------------

    def _adapt(self, now: float) -> None:
        """Look at the window that ends. The shortest wait in it is the measure, as in CoDel
        (RFC 8289 §3.2): a burst makes the longest wait long, only a standing queue the shortest."""
        least, peak, full = self._least, self._peak, self._full
        self.delay = least
        self._least, self._peak, self._full = math.inf, self.in_hand, False
        self._due = False
        # Long enough for the effect of this step to be seen in the next window.
        self._until = now + max(_WINDOW_S, 2 * least)
        if now >= self._patient_until:
            self._target = self.limits.delay_s
        if least > self._target:
            self._fewer(least, min(peak, self.limit), now)
            return
        self._before = None
        if full:
            # The nearer to the target, the smaller the step; rounded up, so that there is one. A
            # target that was learned from slow flushes is no aim.
            step = _GROW
            if self._target == self.limits.delay_s:
                step = min(_AIM * self._target / max(least, 1e-9), _GROW)
            self.limit = min(math.ceil(self.limit * max(step, 1.0)), self.limits.requests)

    def _fewer(self, least: float, used: int, now: float) -> None:
        if self._before is None or least > self._before[1] / _FUTILE:  # another trouble
            self._before = (used, least)
        limit, delay = self._before
        if self.limit <= _HALF * limit and least > _FUTILE * delay:
            # A flush takes that long whatever it holds: fewer in hand only means fewer accepted.
            self.limit, self._before = limit, None
            self._target = 2.5 * least  # a wait for the flush before, and one's own, and some
            self._patient_until = now + _SETTLED_S
            return
        if used > _FLOOR:
            # Where each email costs the store as much, the wait grows with their number.
            self.limit = max(_FLOOR, int(used * max(_AIM * self._target / least, _DEEPEST_CUT)))
