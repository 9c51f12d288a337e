"""From a far end's negative answer to what it means for the recipient. Pure.

Two questions decide: who speaks, and is it for good? A smart host speaks for itself until the
recipient is on the table, and often afterwards (login, quota, rate, relaying, our own reputation
with it): that never bounces a recipient (F57), the message is tried elsewhere or later. A
destination's own host speaks for the destination. What is not known to be permanent is temporary.

The rules are one ordered table in `classification.toml`, each with its source; the first that fits
decides. Codes: RFC 5321 §4.2.3, RFC 4954 §6; enhanced codes: RFC 3463 and its registry (RFC 5248).
Texts are matched only where codes leave something open.
"""

import datetime
import re
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from importlib.resources import files
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from everpost.model.outcome import (
    Bounced,
    Deferred,
    Delivered,
    Mark,
    Phase,
    Reply,
    Speaker,
    Via,
)

__all__ = [
    "PHRASES", "RULES", "TABLE", "Example", "Kind", "Means", "Rule", "Table", "classify",
    "rule",
]  # fmt: skip

_REMEMBERED = 256
"""Answers whose rule is kept: a busy destination says the same few again and again."""

_UNBOUNDED = re.compile(r"(?<!\\)[*+]|\{[0-9]*,\}")
"""Repeats without an end, which make a hostile answer cost more than linear time (F58)."""


class Means(StrEnum):
    """What a rule decides. RELAY_FAULT and THROTTLE are deferrals, too."""

    DEFERRED = "deferred"
    RELAY_FAULT = "relay-fault"
    THROTTLE = "throttle"
    BOUNCED = "bounced"


class Kind(StrEnum):
    """Of a bounce. HARD: the address is no good, for any message."""

    HARD = "hard"
    SOFT = "soft"


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer as it comes over the wire, and where."""

    at: Phase
    says: str


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One row, as `classification.toml` explains it."""

    id: Annotated[str, Meta(pattern="^[a-z][a-z0-9]*(-[a-z0-9]+)*$")]
    via: Literal["relay", "mx", "any"]
    phases: str | None = None
    code: Annotated[str, Meta(pattern=r"^[0-9.\[\]|-]+$")] | None = None
    enhanced: str | None = None
    text: tuple[str, ...] = ()
    means: Means
    kind: Kind | None = None
    mark: Mark | None = None
    speaker: Speaker | None = None
    reason: str
    source: str
    date: datetime.date
    examples: Annotated[tuple[Example, ...], Meta(min_length=1)]
    others: tuple[Example, ...] = ()

    def __post_init__(self) -> None:
        if (self.means is Means.BOUNCED) is not (self.kind is not None):
            raise ValueError(f"{self.id}: `kind` goes with bounces, and with nothing else")
        if self.speaker is Speaker.SELF:
            raise ValueError(f"{self.id}: we never speak in an answer")
        theirs = self.via != "mx" and self.speaks(Via.RELAY) is Speaker.RELAY
        if theirs and self.means is Means.DEFERRED:
            raise ValueError(f"{self.id}: a relay's deferral is `relay-fault` or `throttle`")

    def speaks(self, via: Via) -> Speaker:
        """Who said it; a host of the destination's speaks for the destination."""
        if self.speaker is not None:
            return self.speaker
        return Speaker.RELAY if via is Via.RELAY else Speaker.DESTINATION


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file: named sets of phases, named lists of phrases, and the rules in order."""

    phases: Mapping[str, frozenset[Phase]]
    phrases: Mapping[str, tuple[str, ...]]
    rows: tuple[Rule, ...]

    def __post_init__(self) -> None:
        ids = [row.id for row in self.rows]
        if len(set(ids)) < len(ids):
            raise ValueError(f"ids that come twice: {sorted({i for i in ids if ids.count(i) > 1})}")

    def spoken(self, row: Rule) -> tuple[str, ...]:
        """Every phrase of a row, those of named lists included."""
        found: list[str] = []
        for phrase in row.text:
            found += self.phrases[phrase[1:]] if phrase.startswith("$") else (phrase,)
        return tuple(found)


class _Matcher:
    """A rule with its patterns compiled."""

    __slots__ = ("_code", "_enhanced", "_text", "phases", "rule")

    def __init__(self, row: Rule, table: Table) -> None:
        self.rule = row
        self.phases = frozenset(Phase) if row.phases is None else table.phases[row.phases]
        self._code = None if row.code is None else re.compile(row.code)
        self._enhanced = None if row.enhanced is None else re.compile(row.enhanced)
        self._text = None
        if phrases := table.spoken(row):
            for phrase in phrases:
                if phrase != phrase.lower() or _UNBOUNDED.search(phrase):
                    raise ValueError(f"{row.id}: not lower case, or no end to it: {phrase}")
            self._text = re.compile("|".join(phrases))

    def fits(self, code: str, enhanced: str, text: str) -> bool:
        return (
            (self._code is None or self._code.fullmatch(code) is not None)
            and (self._enhanced is None or self._enhanced.fullmatch(enhanced) is not None)
            and (self._text is None or self._text.search(text) is not None)
        )


def _matchers(table: Table) -> dict[tuple[Via, Phase], tuple[_Matcher, ...]]:
    """The rules in order, by via and phase. The sandbox stands where a destination's host does."""
    compiled = [_Matcher(row, table) for row in table.rows]
    return {
        (via, phase): tuple(
            matcher
            for matcher in compiled
            if phase in matcher.phases
            and matcher.rule.via in {"any", "relay" if via is Via.RELAY else "mx"}
        )
        for via in Via
        for phase in Phase
    }


def _load() -> Table:
    text = files("everpost.delivery").joinpath("classification.toml").read_text("utf-8")
    return msgspec.toml.decode(text, type=Table, strict=True)


TABLE = _load()
RULES = TABLE.rows
PHRASES = TABLE.phrases
_MATCHERS = _matchers(TABLE)


@lru_cache(_REMEMBERED)
def _first(code: int, enhanced: str | None, text: str, phase: Phase, via: Via) -> Rule:
    # Lines are wrapped anywhere, so phrases are looked for across them.
    folded = " ".join(text.lower().split())
    number, status = str(code), enhanced or "-"
    return next(m.rule for m in _MATCHERS[via, phase] if m.fits(number, status, folded))


def rule(reply: Reply, phase: Phase, *, via: Via = Via.RELAY) -> Rule:
    """The row that decides about a negative answer."""
    return _first(reply.code, reply.enhanced, reply.text, phase, via)


def classify(
    reply: Reply, phase: Phase, *, via: Via = Via.RELAY, alone: bool = False
) -> Delivered | Deferred | Bounced:
    """What an answer in this phase means for the recipients it concerns. `alone`: it concerns one
    recipient; an answer to the content that several share marks nobody's address."""
    if phase is Phase.DOT and 200 <= reply.code < 300:
        return Delivered(reply, via)
    row = rule(reply, phase, via=via)
    speaker = row.speaks(via)
    if row.means is Means.BOUNCED:
        hard = row.kind is Kind.HARD and (alone or phase is Phase.RCPT)
        return Bounced(reply, phase, speaker, hard, row.id, row.mark)
    return Deferred(
        row.reason,
        phase,
        speaker,
        reply,
        relay_fault=speaker is Speaker.RELAY,
        throttle=row.means is Means.THROTTLE,
        rule=row.id,
        mark=row.mark,
    )
