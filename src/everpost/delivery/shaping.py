"""How much a destination site gets from us, by what it says: pure, facts and `now` in, a word out.

Per *path*, which is a relay (a source address) and a site:

* Sessions at once begin at `START`, one more for each full round of successes, half as many at a
  refusal of a session (421, no connection), never above the cap that the caller names.
* An answer that asks us to send less stops the path for a while (`cooling`), a minute that doubles
  up to an hour; one that refuses our address, for an hour that doubles up to a day. Afterwards it
  starts with one session. What was under way when the path was cut does not count against it again.
* A site that greylists is remembered with the relay that it saw first, which is preferred for it.

What other processes should know of comes out of `news` and goes into `learn`. Which relay is down,
which host cannot be reached, and who comes next are other modules' questions.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import Any

import msgspec

from everpost.model.outcome import (
    Bounced,
    Deferred,
    Delivered,
    Mark,
    Outcome,
    Phase,
    Speaker,
)

__all__ = [
    "BLOCKING_MS",
    "COOLDOWN",
    "GREYLIST",
    "LONGEST_PAUSE_MS",
    "LONGEST_STOP_MS",
    "OTHERS_LATER_MS",
    "PAUSE_MS",
    "START",
    "STOP_MS",
    "News",
    "Shaper",
    "Word",
    "word_of",
]

START = 5
"""Sessions at once to a site that we know nothing of (initial_destination_concurrency)."""

PAUSE_MS, LONGEST_PAUSE_MS = 60_000, 3_600_000
STOP_MS, LONGEST_STOP_MS = 3_600_000, 86_400_000

OTHERS_LATER_MS = 5_000
"""The process that heard the refusal comes back first; the others, who only learnt of it, so much
later: one session asks whether the site has cooled down, not one of each process (I19)."""

BLOCKING_SITES = 3
"""Sites that refuse an address within `BLOCKING_MS` before it is taken for no good anywhere …"""
BLOCKING_MS = 3_600_000
BLOCKING_SHARE = 4
"""… if they are at least one in so many of those it talked to: a stranger with three domains of his
own must not be able to stop a relay."""

PENDING_MS = 86_400_000
"""A greylist waits so long for the second try (RFC 6647 §5 has 24 hours at most)."""
_SECOND_TRY_MS = 3_600_000
"""For so long the relay that it saw first is left the second try, though it greets another one
likewise."""
PASSED_MS = 30 * 86_400_000
"""And remembers who came back for about a month (postgrey: 35 days)."""

COOLDOWN, GREYLIST = "cooldown", "greylist"
"""Kinds of news."""

_PATHS = 20_000
_SITES = 20_000
_DAY_MS = 86_400_000
_MOST_STRIKES = 16

Path = tuple[bytes, str]


class Word(Enum):
    """What an outcome says of the path: it worked; nothing; fewer sessions; pause; our address is
    not wanted; come back with the same message."""

    WORKED = auto()
    NOTHING = auto()
    FEWER = auto()
    PAUSE = auto()
    STOP = auto()
    GREY = auto()


def word_of(outcome: Outcome) -> Word:
    """What a destination's host said of us, when we went straight to it."""
    match outcome:
        case Delivered() | Bounced(speaker=Speaker.DESTINATION, mark=None):
            return Word.WORKED
        case Bounced(speaker=Speaker.DESTINATION, mark=Mark.BLOCK):
            return Word.STOP
        case Deferred(speaker=Speaker.DESTINATION):
            return _word_of_deferral(outcome)
        case _:
            return Word.NOTHING


def _word_of_deferral(said: Deferred) -> Word:
    if said.mark is Mark.BLOCK:
        return Word.STOP
    if said.mark is Mark.GREYLIST:
        return Word.GREY
    if said.mark is Mark.MAILBOX or said.phase is Phase.ROUTE:
        return Word.NOTHING
    if said.throttle:
        return Word.PAUSE
    # No connection, silence, hung up; or told to go.
    closed = said.reply is None or said.reply.code == 421 or said.phase in _SESSION
    return Word.FEWER if closed else Word.NOTHING


_SESSION = frozenset({Phase.CONNECT, Phase.GREET})


class News(msgspec.Struct, frozen=True):
    """What one process found out and others should know until `expires_at` (milliseconds): what a
    note in the store consists of."""

    kind: str
    key: str
    data: Mapping[str, Any]
    expires_at: int


class _Cooldown(msgspec.Struct):
    until: int
    strikes: int
    stops: int
    blocked: bool
    why: str = ""


def _longest(told: _Cooldown) -> int:
    """What a site that has earned so many strikes and stops was stopped for at most."""
    pause = min(PAUSE_MS << max(told.strikes - 1, 0), LONGEST_PAUSE_MS)
    stop = min(STOP_MS << max(told.stops - 1, 0), LONGEST_STOP_MS)
    return max(pause, stop) if told.stops else pause


class _Grey(msgspec.Struct):
    relay: str
    passed: bool
    until: int


class _State:
    """One path. `won`: successes since `limit` last changed; `cut_at`: when a refusal last changed
    it; `until`: no session before; `strikes` and `stops` let the next pause or stop grow."""

    __slots__ = (
        "blocked_at",
        "cut_at",
        "limit",
        "stops",
        "strikes",
        "until",
        "why",
        "won",
        "worked_at",
    )

    def __init__(self) -> None:
        self.limit = START
        self.won = 0
        self.cut_at = -1
        self.until = 0
        self.strikes = 0
        self.stops = 0
        self.blocked_at: int | None = None
        self.worked_at = 0
        self.why = ""

    def cools(self, now: int) -> bool:
        """A clock that was set back since then ends it (I22)."""
        return self.cut_at <= now < self.until


class Shaper:
    """One process's word on all paths. Times are wall time in milliseconds."""

    def __init__(self) -> None:
        self._paths: OrderedDict[Path, _State] = OrderedDict()
        self._grey: OrderedDict[str, _Grey] = OrderedDict()
        self._news: dict[tuple[str, str], News] = {}

    # --- asked before a session or a transaction --------------------------------------------------

    def limit(self, relay: bytes, site: str, *, cap: int) -> int:
        """Sessions that the path may have at once, of at most `cap`."""
        state = self._paths.get((relay, site))
        return min(START if state is None else state.limit, cap)

    def admits(self, relay: bytes, site: str, in_flight: int, *, cap: int, now: int) -> bool:
        """Whether one more than `in_flight` may be under way."""
        state = self._paths.get((relay, site))
        if state is None:
            return in_flight < START and in_flight < cap
        return in_flight < state.limit and in_flight < cap and not state.cools(now)

    def cooling(self, relay: bytes, site: str, *, now: int) -> int | None:
        """Until when the path takes nothing; None: it does."""
        state = self._paths.get((relay, site))
        return state.until if state is not None and state.cools(now) else None

    def blocked(self, relay: bytes, site: str, *, now: int) -> bool:
        """Whether it is stopped because the site refuses this relay's address."""
        state = self._paths.get((relay, site))
        return state is not None and state.cools(now) and state.blocked_at is not None

    def why(self, relay: bytes, site: str) -> str:
        """The words that last cut the path."""
        state = self._paths.get((relay, site))
        return "" if state is None else state.why

    def preferred(self, site: str, *, now: int) -> bytes | None:
        """The relay that this site, which greylists, has seen before."""
        if not self._grey:
            return None
        grey = self._grey.get(site)
        return bytes.fromhex(grey.relay) if grey is not None and now < grey.until else None

    # --- told afterwards --------------------------------------------------------------------------

    def worked(self, relay: bytes, site: str, *, cap: int, now: int) -> None:
        """The site did its work for us: it took a message, or spoke of a recipient."""
        state = self._paths.get((relay, site))
        if state is None:
            state = self._new((relay, site), now)
        state.worked_at = now
        if not state.cools(now):
            state.won += 1
            if state.won >= state.limit:
                self._round(state, cap)
        if self._grey:
            self._came_back(relay, site, now)

    @staticmethod
    def _round(state: _State, cap: int) -> None:
        """As many successes as there may be sessions: room for one more, and less of a grudge."""
        state.won = 0
        state.limit = min(state.limit + 1, max(cap, 1))
        state.strikes = max(state.strikes - 1, 0)
        state.stops = max(state.stops - 1, 0)
        state.blocked_at = None

    def refused(
        self, relay: bytes, site: str, word: Word, why: str, *, began: int, now: int
    ) -> int:
        """A refusal, in answer to what began at `began`. How many sites block this relay, where
        they are so many that it is no good anywhere; else 0."""
        path = (relay, site)
        if word is Word.GREY:
            self._greylists(relay, site, now)
            return 0
        state = self._paths.get(path) or self._new(path, now)
        if began <= state.cut_at <= now:  # the clock may have been set back since (I22)
            return 0
        state.cut_at, state.won = now, 0
        if word is Word.FEWER:
            state.limit = max(state.limit // 2, 1)
            return 0
        state.limit, state.why = 1, why
        if word is Word.STOP:
            until = now + min(STOP_MS << state.stops, LONGEST_STOP_MS)
            state.stops = min(state.stops + 1, _MOST_STRIKES)
            state.blocked_at = now
        else:
            until = now + min(PAUSE_MS << state.strikes, LONGEST_PAUSE_MS)
            state.strikes = min(state.strikes + 1, _MOST_STRIKES)
        state.until = max(state.until, until)
        data = _Cooldown(state.until, state.strikes, state.stops, state.blocked_at is not None, why)
        self._tell(COOLDOWN, f"{relay.hex()}/{site}", data, state.until)
        return self._unwelcome(relay, now) if word is Word.STOP else 0

    def _unwelcome(self, relay: bytes, now: int) -> int:
        since = now - BLOCKING_MS
        own = [state for (id_, _), state in self._paths.items() if id_ == relay]
        blocking = sum(s.blocked_at is not None and s.blocked_at >= since for s in own)
        talking = sum(s.blocked_at is None and s.worked_at >= since for s in own)
        many = blocking >= BLOCKING_SITES and blocking * BLOCKING_SHARE >= blocking + talking
        return blocking if many else 0

    # --- greylists --------------------------------------------------------------------------------

    def _greylists(self, relay: bytes, site: str, now: int) -> None:
        """The relay that it saw first stays the one for the second try; one that had passed has to
        pass anew, or is not in service, or it would have been tried."""
        known = self._grey.get(site)
        if known is not None and not known.passed:
            if known.relay != relay.hex() and now < known.until - PENDING_MS + _SECOND_TRY_MS:
                return
            if known.relay == relay.hex() and now < known.until:
                return
        self._know_grey(site, _Grey(relay.hex(), passed=False, until=now + PENDING_MS))

    def _came_back(self, relay: bytes, site: str, now: int) -> None:
        known = self._grey.get(site)
        if known is None or known.relay != relay.hex() or known.until <= now:
            return
        # What holds for a month is not written anew with each message.
        if not known.passed or known.until < now + PASSED_MS - _DAY_MS:
            self._know_grey(site, _Grey(known.relay, passed=True, until=now + PASSED_MS))

    def _know_grey(self, site: str, grey: _Grey) -> None:
        self._grey[site] = grey
        self._grey.move_to_end(site)
        if len(self._grey) > _SITES:
            self._grey.popitem(last=False)
        self._tell(GREYLIST, site, grey, grey.until)

    # --- between processes ------------------------------------------------------------------------

    def news(self) -> Sequence[News]:
        """What this process found out since the last call."""
        if not self._news:
            return ()
        found = tuple(self._news.values())
        self._news.clear()
        return found

    def learn(self, news: Iterable[News], *, now: int) -> None:
        """What others found out; what we said ourselves changes nothing."""
        for one in news:
            try:
                if one.kind == COOLDOWN:
                    self._learn_cooldown(one, now)
                elif one.kind == GREYLIST:
                    grey = msgspec.convert(one.data, _Grey)
                    bytes.fromhex(grey.relay)
                    known = self._grey.get(one.key)
                    if grey.until > now and (known is None or known.until < grey.until):
                        self._grey[one.key] = grey
            except (msgspec.ValidationError, ValueError):
                continue  # another version's words
        while len(self._grey) > _SITES:
            self._grey.popitem(last=False)

    def _learn_cooldown(self, one: News, now: int) -> None:
        told = msgspec.convert(one.data, _Cooldown)
        relay, _, site = one.key.partition("/")
        path = (bytes.fromhex(relay), site)
        state = self._paths.get(path)
        # A clock that was set back since then makes nothing later than it can be (I22).
        until = min(told.until, now + _longest(told))
        if until <= now or (state is not None and state.until >= until):
            return
        if state is None:
            state = self._new(path, now)
        state.limit, state.won, state.cut_at = 1, 0, now
        state.until = until + OTHERS_LATER_MS
        state.strikes, state.stops = told.strikes, told.stops
        state.blocked_at = now if told.blocked else None
        state.why = told.why

    def _tell(self, kind: str, key: str, data: msgspec.Struct, expires_at: int) -> None:
        self._news[kind, key] = News(kind, key, msgspec.to_builtins(data), expires_at)

    def _new(self, path: Path, now: int) -> _State:
        state = self._paths[path] = _State()
        if len(self._paths) > _PATHS:
            # The eldest goes; one that cools gets another turn, as long as not all do.
            for eldest in tuple(self._paths)[:100]:
                if self._paths[eldest].until <= now:
                    del self._paths[eldest]
                    return state
            self._paths.popitem(last=False)
        return state
