"""What this process may use of a relay's limits, which hold over all processes. Pure: what was
granted, what the relay's lane did and `now` in; what to ask for, and what is left, out.

Seats are places for sessions, held for a term and asked for anew in every slice; budgets are
messages in a window (a second, a minute, a UTC day), asked for as they are used up. What was
granted ends by itself, before the granter takes it back: who hears nothing any more stops in time.

A process asks for all seats while nobody else lacks any, so that a burst finds its places; once
they are short, for those it needs. A plan of a day is released evenly over it.
"""

from collections.abc import Mapping, Sequence
from math import ceil

import msgspec

from everpost.delivery.warmup import plan_for
from everpost.ids import text
from everpost.model.relay import Relay, RelayKind
from everpost.model.shares import Ask, Grant

__all__ = ["SLICE_S", "TERM_MS", "Allowance", "Load", "Spent"]

SLICE_S = 2.0
"""Seconds after which seats are asked for anew."""

TERM_MS = 6_000
"""How long they are granted for …"""
_TRUST_S = 5.0
"""… and how long we rely on them, counted from before they were asked for."""

_AGAIN_S = 0.5
"""After an answer that left wishes open."""

_GIVE_BACK_S = 0.1
"""After an answer that took seats in use away: to say that they are free."""

_SHORT_S = 30.0
"""For so long after seats were short only those are asked for that are needed."""

_PATIENCE_S = 5.0
"""Mail waits in hand for a budget's next window when that is so near; else it goes elsewhere."""

_FIRST_USES = 16
"""Of a budget that is not known to be used faster; else what two slices take, but no more than
twice what was used since the last ask."""

_AHEAD_MS = 3_600_000
"""Mail that a spent budget turned away is told to come back when its turn may come, but no later
than this."""

_SECOND_MS, _MINUTE_MS, _DAY_MS = 1_000, 60_000, 86_400_000
_NEVER = float("inf")


class Load(msgspec.Struct, frozen=True):
    """What a lane does. `sessions`: all that are open, or being opened or closed; `widest`: most
    of them to one site. Since the last ask: `peak`, the most in flight; `waiting`: somebody
    found no place."""

    sessions: int = 0
    widest: int = 0
    peak: int = 0
    waiting: bool = False

    @property
    def any(self) -> bool:
        return self.waiting or bool(self.peak or self.sessions)


class Spent(msgspec.Struct, frozen=True):
    """A budget that is used up. `until`: when there is more (milliseconds); `words` say so."""

    until: int
    words: str


class _Seats:
    """A limit of places. `told`: how many the granter knows to be in use; `short_until`: others
    want them too."""

    __slots__ = ("amount", "asked_at", "cap", "name", "short_until", "told", "until")

    def __init__(self, name: str, cap: int) -> None:
        self.name = name
        self.cap = cap
        self.amount = 0
        self.until = 0.0
        self.asked_at = -_NEVER
        self.short_until = -_NEVER
        self.told = 0

    def ask(self, *, needed: int, used: int, now: float) -> Ask:
        want = self.cap if now >= self.short_until else min(needed, self.cap)
        return Ask(self.name, "seats", self.cap, want, used)

    def grant(self, grant: Grant, ask: Ask, *, asked_at: float) -> None:
        self.asked_at = asked_at
        self.amount = grant.amount
        self.until = asked_at + _TRUST_S
        self.told = ask.used
        if grant.amount < ask.want or grant.left < 0:
            self.short_until = asked_at + _SHORT_S

    def lapse(self, now: float) -> None:
        if now >= self.until:
            self.amount = 0


class _Budget:
    """A limit of messages in a window. `here`: granted and not used yet, until `until`; `used`
    since it was last asked for; `closed_until`: nothing is left for anybody, in monotonic seconds
    and as `closed_wall` in milliseconds; `hungry`: more would be used."""

    __slots__ = (
        "asked_at", "booked", "cap", "closed_until", "closed_wall", "here", "hungry", "name",
        "plan", "until", "used", "window_end", "window_ms",
    )  # fmt: skip

    def __init__(self, name: str, cap: int, window_ms: int, *, plan: bool = False) -> None:
        self.name = name
        self.cap = cap
        self.window_ms = window_ms
        self.plan = plan
        self.here = 0
        self.until = 0.0
        self.used = 0
        self.window_end = 0
        self.asked_at = -_NEVER
        self.closed_until = -_NEVER
        self.closed_wall = 0
        self.hungry = False
        self.booked = 0

    def take(self, n: int) -> None:
        self.here = max(self.here - n, 0)
        self.used += n
        if n and not self.here:
            self.hungry = True

    def lapse(self, now: float) -> None:
        if now >= self.until:
            self.here = 0

    def released(self, wall: int) -> int:
        """What there may be of it by now: a plan's part of the day, with an hour in advance."""
        if not self.plan:
            return self.cap
        return min(self.cap * (wall % _DAY_MS + _DAY_MS // 24) // _DAY_MS, self.cap)

    def look(self, wall: int) -> None:
        """The wall clock may have been set past the moment from which there is more."""
        if 0 < self.closed_wall <= wall:
            self.closed_until, self.closed_wall = min(self.closed_until, self.asked_at), 0

    def next_release(self, wall: int) -> int:
        """When a plan releases one more."""
        start = wall - wall % _DAY_MS
        more = self.released(wall) + 1
        if more > self.cap:
            return start + _DAY_MS
        return max(start + -(-more * _DAY_MS // self.cap) - _DAY_MS // 24, wall + 1)

    def ask(self, *, waiting: bool, now: float, wall: int) -> Ask | None:
        slices = max(now - self.asked_at, 0.01) / SLICE_S
        needed = max(_FIRST_USES, min(2 * self.used, ceil(2 * self.used / slices)))
        if self.window_ms <= _SECOND_MS:
            needed = self.cap
        enough = self.here > (0 if self.window_ms <= _SECOND_MS else self.used)
        if enough or now < self.closed_until or not (waiting or self.hungry or self.used):
            return None
        cap = self.released(wall)
        return Ask(self.name, "budget", cap, min(needed, self.cap), window_ms=self.window_ms)

    def grant(self, grant: Grant, *, asked_at: float, wall: int) -> None:
        # The wall clock may have been set between the question and the answer.
        ends_in = min(max(grant.until - wall, 0), self.window_ms)
        if grant.until != self.window_end:  # what was left of the last window is void
            self.here = 0
        self.window_end = grant.until
        self.until = asked_at + ends_in / 1000
        self.here += grant.amount
        self.used, self.asked_at = 0, asked_at
        self.hungry = not grant.amount
        if grant.left > 0:
            self.closed_until = -_NEVER if grant.amount else asked_at + _AGAIN_S
            self.closed_wall = 0
            return
        more = min(grant.until, self.next_release(wall)) if self.plan else grant.until
        if more != self.closed_wall:
            self.booked = 0
        self.closed_wall = more
        self.closed_until = asked_at + min(max(more - wall, 1), self.window_ms) / 1000

    def book(self) -> int:
        """When one that is turned away now may come: after those that were turned away before."""
        turn = self.booked
        self.booked += 1
        if self.plan:
            ahead = turn * _DAY_MS // max(self.cap, 1)
        elif self.window_ms < _DAY_MS:
            ahead = turn // max(self.cap, 1) * self.window_ms
        else:
            ahead = 0
        return self.closed_wall + min(ahead, _AHEAD_MS)


class Allowance:
    """One relay's. `cap`, `site_cap` and `uses` are what its lane may use now."""

    __slots__ = ("_asks", "_budgets", "_not_before", "_seats", "_sites")

    def __init__(self, relay: Relay, wall: int) -> None:
        self._seats = _Seats(_name(relay), relay.connections)
        self._sites: _Seats | None = None
        self._budgets: Sequence[_Budget] = ()
        self._asks: Mapping[str, Ask] = {}
        self._not_before = -_NEVER
        self.adopt(relay, wall)

    def adopt(self, relay: Relay, wall: int) -> None:
        """Take new settings, or the plan of a new day; seats stand until they end."""
        name = _name(relay)
        self._seats.cap = relay.connections
        if relay.kind is RelayKind.MX:
            self._sites = self._sites or _Seats(f"{name}/sites", relay.destination_connections)
            self._sites.cap = relay.destination_connections
        else:
            self._sites = None
        known = {budget.name: budget for budget in self._budgets}
        budgets = []
        for what, cap, window_ms in (
            ("second", relay.messages_per_second, _SECOND_MS),
            ("minute", relay.messages_per_minute, _MINUTE_MS),
            ("day", relay.messages_per_day, _DAY_MS),
            ("plan", plan_for(relay, wall), _DAY_MS),
        ):
            if cap is None:
                continue
            budget = known.get(f"{name}/{what}")
            if budget is None or budget.cap != cap:
                budget = _Budget(f"{name}/{what}", cap, window_ms, plan=what == "plan")
            budget.look(wall)
            budgets.append(budget)
        self._budgets = budgets

    @property
    def cap(self) -> int:
        return min(self._seats.amount, self._seats.cap)

    @property
    def site_cap(self) -> int:
        """Sessions to one destination."""
        return self.cap if self._sites is None else min(self._sites.amount, self._sites.cap)

    @property
    def uses(self) -> int | None:
        return min((b.here for b in self._budgets), default=None)

    def started(self, n: int) -> None:
        """Messages that were started since this was last told."""
        for budget in self._budgets:
            budget.take(n)

    def lapse(self, now: float) -> None:
        """Let go of what has ended."""
        self._seats.lapse(now)
        if self._sites is not None:
            self._sites.lapse(now)
        for budget in self._budgets:
            budget.lapse(now)

    # -- asking ------------------------------------------------------------------------------------

    def owes(self, load: Load) -> bool:
        """Whether seats are free by now that were taken away while they were in use."""
        sites = self._sites
        return _owes(self._seats, load.sessions) or (
            sites is not None and _owes(sites, load.widest)
        )

    def rests(self, load: Load, now: float) -> bool:
        """Whether sessions are kept for later though others lack seats."""
        idle = load.sessions > 0 and not load.peak and not load.waiting
        return idle and now < self._seats.short_until

    @property
    def holds(self) -> bool:
        """Whether the granter counts seats as ours."""
        return any(s is not None and (s.amount or s.told) for s in (self._seats, self._sites))

    def ask_at(self, load: Load, *, now: float, wall: int) -> float:
        """When to ask next, in monotonic seconds; in the past for a relay that was not used yet."""
        seats = self._seats
        at = seats.asked_at + SLICE_S
        if seats.amount < seats.cap and (load.waiting or load.peak >= seats.amount):
            at = min(at, seats.asked_at + _AGAIN_S)
        if self.rests(load, now):
            at = min(at, seats.asked_at + _AGAIN_S)
        if self.owes(load):
            at = min(at, seats.asked_at + _GIVE_BACK_S)
        if load.any:
            for budget in self._budgets:
                if budget.ask(waiting=load.waiting, now=now, wall=wall) is not None:
                    at = min(at, now)
                elif budget.hungry and not budget.here:
                    at = min(at, budget.closed_until)
        return max(at, self._not_before)

    def asks(self, load: Load, *, now: float, wall: int, wanted: bool = True) -> Sequence[Ask]:
        """Everything there is to ask for now. Not `wanted`: give the seats back."""
        if not wanted:
            found = [Ask(self._seats.name, "seats", self._seats.cap, 0, load.sessions)]
            if self._sites is not None:
                found.append(Ask(self._sites.name, "seats", self._sites.cap, 0, load.widest))
        else:
            full = load.waiting or load.peak >= self._seats.amount > 0
            needed = self._seats.cap if full else load.peak + 1
            if self.rests(load, now):
                needed = 0
            found = [self._seats.ask(needed=needed, used=load.sessions, now=now)]
            if self._sites is not None:
                found.append(self._sites.ask(needed=self._sites.cap, used=load.widest, now=now))
            asked = (
                b.ask(waiting=load.waiting or load.any, now=now, wall=wall) for b in self._budgets
            )
            found += [ask for ask in asked if ask is not None]
        self._asks = {ask.name: ask for ask in found}
        return found

    def granted(self, grants: Mapping[str, Grant], *, asked_at: float, wall: int) -> None:
        """The answer to `asks`. `asked_at` and `wall`: the moment before they were sent."""
        for seats in (self._seats, self._sites):
            if seats is not None and seats.name in grants:
                seats.grant(grants[seats.name], self._asks[seats.name], asked_at=asked_at)
        for budget in self._budgets:
            if budget.name in grants:
                budget.grant(grants[budget.name], asked_at=asked_at, wall=wall)

    def refused(self, now: float) -> None:
        """Nobody answered: ask again a little later."""
        self._not_before = now + _AGAIN_S

    def lapse_at(self, now: float) -> float:
        """When the first of what is granted, or of what is spent, ends, in monotonic seconds."""
        ends = [s.until for s in (self._seats, self._sites) if s is not None and s.amount]
        for budget in self._budgets:
            if budget.here:
                ends.append(budget.until)
            ends += [budget.closed_until - _PATIENCE_S, budget.closed_until]
        return min((end for end in ends if end > now), default=_NEVER)

    # -- what is spent -----------------------------------------------------------------------------

    def spent(self, now: float) -> Spent | None:
        """Whether the relay takes no more for so long that mail should not wait for it in hand."""
        budget = self._closed(now)
        return None if budget is None else Spent(budget.closed_wall, self._words(budget))

    def turn_away(self, now: float) -> int | None:
        """When the next message that has to come back may do so, in milliseconds."""
        budget = self._closed(now)
        return None if budget is None else budget.book()

    def _closed(self, now: float) -> _Budget | None:
        closed = [b for b in self._budgets if not b.here and b.closed_until > now + _PATIENCE_S]
        return max(closed, key=lambda b: b.closed_until, default=None)

    @staticmethod
    def _words(budget: _Budget) -> str:
        if budget.plan:
            return f"has sent what its warm-up plan of {budget.cap:,} a day allows by now"
        window = "minute" if budget.window_ms == _MINUTE_MS else "day"
        return f"has sent its {budget.cap:,} of this {window}"


def _owes(seats: _Seats, used: int) -> bool:
    return used < seats.told and seats.told > seats.amount


def _name(relay: Relay) -> str:
    return f"relay/{text(relay.id)}"
