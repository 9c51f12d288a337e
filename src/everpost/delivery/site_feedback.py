"""What a destination's host says of us, brought to those whom it concerns. Doing; `shaping` decides
how much the site gets from now on."""

from collections.abc import Sequence
from typing import TypeGuard

import msgspec

from everpost import telemetry
from everpost.clock import Clock
from everpost.delivery.envelope import Envelope
from everpost.delivery.judging import Judge
from everpost.delivery.lane import Lane
from everpost.delivery.lanes import Lanes
from everpost.delivery.shaping import Shaper, Word, word_of
from everpost.delivery.sites import Site
from everpost.model.outcome import Bounced, Deferred, Mark, Outcome, Phase

__all__ = ["Heard", "SiteFeedback", "not_this_way"]

_COOLDOWNS = telemetry.counter(
    "everpost_cooldowns_total", "Sites that a relay leaves alone for a while", ("relay", "word")
)
_BY_WEIGHT = (Word.STOP, Word.PAUSE, Word.GREY, Word.FEWER, Word.WORKED)

Outcomes = Sequence[Outcome | None]


class Heard(msgspec.Struct, frozen=True):
    """What follows for the recipients. `cut`: the site wants no more of us now, its other hosts are
    not asked; `elsewhere`: another relay may be tried in the same attempt."""

    outcomes: Outcomes
    cut: bool = False
    elsewhere: bool = False


class SiteFeedback:
    """Of all lanes that deliver directly."""

    def __init__(self, clock: Clock, *, shaper: Shaper, lanes: Lanes, judge: Judge) -> None:
        self._clock = clock
        self._shaper = shaper
        self._lanes = lanes
        self._judge = judge

    def hear(
        self,
        outcomes: Outcomes,
        lane: Lane,
        site: Site,
        *,
        host: str,
        began: int,
        tried: frozenset[bytes],
        envelope: Envelope,
    ) -> Heard:
        """What `host` made of an envelope since `began` (milliseconds). One that is none of its
        site's own hosts says nothing of the site."""
        if host not in site.hosts and site.hosts:
            return Heard(outcomes)
        now = self._clock.now()
        words = [word_of(outcome) for outcome in outcomes if outcome is not None]
        word = next((w for w in _BY_WEIGHT if w in words), Word.NOTHING)
        if word is Word.WORKED:
            self._shaper.worked(lane.id, site.name, cap=lane.most(site), now=now)
        if word is Word.WORKED or word is Word.NOTHING:
            return Heard(outcomes)
        why = next(str(_said(o)) for o in outcomes if o is not None and word_of(o) is word)
        blocking = self._shaper.refused(lane.id, site.name, word, why, began=began, now=now)
        heard = Heard(outcomes)
        if word is Word.PAUSE or word is Word.STOP:
            beyond = word is Word.STOP and self._lanes.any_beyond(tried, envelope, site)
            heard = self._stop(outcomes, lane, site, why, beyond=beyond, word=word, now=now)
        if blocking:
            self._judge.unwelcome(lane, blocking)
        return heard

    def _stop(
        self,
        outcomes: Outcomes,
        lane: Lane,
        site: Site,
        why: str,
        *,
        beyond: bool,
        word: Word,
        now: int,
    ) -> Heard:
        """Nothing more goes there this way; what was refused for our address goes another way, if
        there is one `beyond` that is not refused, else waits as long."""
        until = self._shaper.cooling(lane.id, site.name, now=now)
        telemetry.event(
            "site.cooldown", relay=lane.relay.name, site=site.name, until=until, why=why,
            blocked=word is Word.STOP,
        )  # fmt: skip
        _COOLDOWNS.add(1, lane.relay.name, word.name.lower())
        elsewhere = False
        if beyond:
            # A second final dot would be another attempt, as would a second transaction where some
            # were taken: soon, then.
            elsewhere = all(_refuses_us(o) and o.phase is not Phase.DOT for o in outcomes)
            outcomes = [not_this_way(o, now) if _refuses_us(o) else o for o in outcomes]
        outcomes = [
            msgspec.structs.replace(o, until=until)
            if isinstance(o, Deferred) and o.until is None and word_of(o) in {Word.PAUSE, Word.STOP}
            else o
            for o in outcomes
        ]
        self._lanes.changed()
        return Heard(outcomes, cut=True, elsewhere=elsewhere)


def not_this_way(outcome: Deferred | Bounced, until: int | None) -> Deferred:
    """A refusal as a deferral: it was for this relay, and another one may be welcome."""
    return Deferred(
        "not through this relay, another one may carry it later",
        outcome.phase,
        outcome.speaker,
        outcome.reply,
        rule=outcome.rule,
        mark=outcome.mark,
        until=until,
    )


def _refuses_us(outcome: Outcome | None) -> TypeGuard[Deferred | Bounced]:
    return isinstance(outcome, Deferred | Bounced) and outcome.mark is Mark.BLOCK


def _said(outcome: Outcome) -> object:
    reply = getattr(outcome, "reply", None)
    return reply if reply is not None else getattr(outcome, "reason", "")
