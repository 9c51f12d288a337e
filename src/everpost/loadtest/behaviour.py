"""How a sink misbehaves: rules per phase of a session, decided without doing anything.

A phase is a point where the sink would answer: connect · banner · ehlo · starttls · auth · mail ·
rcpt · data · body (the content is here, not yet stored) · dot (stored, unless refused; an answer is
due). So closing at `dot` makes a delivery that its sender must doubt, closing at `body` one that
never was.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

__all__ = ["PHASES", "Behaviour", "Occasion", "Rule", "Script"]

PHASES = (
    "connect", "banner", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "body", "dot",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Occasion:
    """What a rule may look at. `recipients`: the one of `rcpt`, later all accepted ones."""

    phase: str
    connection: int
    hello: str = ""
    sender: str = ""
    recipients: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One deviation. Of the rules of a phase the first that applies is taken.

    What happens: after `delay` seconds, `silent` (never an answer), or `close` (no answer, the
    connection ends), or `refuse` ("550 5.1.1 No such user"; 421 ends the connection, too), or else
    the usual.
    When: `domain` (a pattern such as `*.example.com`, of the recipients) and `match` select
    occasions; of those the first `skip` pass, then each `every`-th one is taken with `probability`,
    `times` at most.
    """

    phase: str
    delay: float = 0.0
    refuse: str | None = None
    close: bool = False
    silent: bool = False
    probability: float = 1.0
    skip: int = 0
    every: int = 1
    times: int | None = None
    domain: str | None = None
    match: Callable[[Occasion], bool] | None = None

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise ValueError(f"{self.phase!r} is no phase: {', '.join(PHASES)}")
        if self.refuse is not None and not re.fullmatch("[45][0-9]{2} .+", self.refuse, re.DOTALL):
            raise ValueError(
                f"{self.refuse!r} is no refusal: say it as in '550 5.1.1 No such user'"
            )
        if self.delay < 0 or not 0 <= self.probability <= 1 or self.skip < 0 or self.every < 1:
            raise ValueError(f"a number of the rule for {self.phase} is out of range")

    @property
    def reply(self) -> tuple[int, str] | None:
        """Code and text of the refusal."""
        return None if self.refuse is None else (int(self.refuse[:3]), self.refuse[4:])

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Read `PHASE [delay=S] [refuse='CODE TEXT'] [close] [silent] [probability=P] [skip=N]
        [every=N] [times=N] [domain=PATTERN]`. Raises ValueError."""
        phase, *words = shlex.split(text) or [""]
        parts: dict[str, Any] = {}
        for word in words:
            name, given, value = word.partition("=")
            if name in {"close", "silent"} and not given:
                parts[name] = True
            elif name in _READ and given:
                parts[name] = _READ[name](value)
            else:
                raise ValueError(f"{word!r} is no part of a rule")
        return cls(phase, **parts)


_READ: Mapping[str, Callable[[str], object]] = {
    "delay": float, "probability": float, "skip": int, "every": int, "times": int,
    "refuse": str, "domain": str,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a sink does differently: plain entries per phase, and rules, which are tried first.

    `match`, when given, limits the plain entries to the occasions for which it is true.
    """

    delay: Mapping[str, float] | None = None
    refuse: Mapping[str, str] | None = None
    close: Iterable[str] = ()
    silent: Iterable[str] = ()
    match: Callable[[Occasion], bool] | None = None
    rules: tuple[Rule, ...] = ()

    def all_rules(self) -> tuple[Rule, ...]:
        """Rules first, then one rule for each phase that a plain entry names."""
        delay, refuse = self.delay or {}, self.refuse or {}
        close, silent = frozenset(self.close), frozenset(self.silent)
        named = {*delay, *refuse, *close, *silent}
        plain = (
            Rule(
                phase,
                delay=delay.get(phase, 0.0),
                refuse=refuse.get(phase),
                close=phase in close,
                silent=phase in silent,
                match=self.match,
            )
            for phase in sorted(named)
        )
        return (*self.rules, *plain)


class Script:
    """A behaviour being played: counts its occasions. `chance` gives numbers in [0, 1)."""

    def __init__(self, behaviour: Behaviour, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._counted: dict[str, list[_Counted]] = {}
        for rule in behaviour.all_rules():
            self._counted.setdefault(rule.phase, []).append(_Counted(rule))
        self.phases = frozenset(self._counted)

    def decide(self, occasion: Occasion) -> Rule | None:
        """The rule that applies now, None for the usual."""
        for counted in self._counted.get(occasion.phase, ()):
            if counted.applies(occasion, self._chance):
                return counted.rule
        return None


class _Counted:
    """A rule, how often its occasion came, and how often it was taken."""

    __slots__ = ("rule", "seen", "taken")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.seen = 0
        self.taken = 0

    def applies(self, occasion: Occasion, chance: Callable[[], float]) -> bool:
        rule = self.rule
        if rule.times is not None and self.taken >= rule.times:
            return False
        if rule.domain is not None and not _in_domain(occasion.recipients, rule.domain.lower()):
            return False
        if rule.match is not None and not rule.match(occasion):
            return False
        self.seen += 1
        if self.seen <= rule.skip or (self.seen - rule.skip) % rule.every:
            return False
        if rule.probability < 1 and chance() >= rule.probability:
            return False
        self.taken += 1
        return True


def _in_domain(recipients: Iterable[str], pattern: str) -> bool:
    return any(fnmatchcase(r.rpartition("@")[2].lower(), pattern) for r in recipients)
