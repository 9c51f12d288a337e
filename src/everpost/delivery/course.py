"""Where a message goes when a relay cannot carry it. Pure.

A relay at fault is left for another one, as long as nothing can have been delivered and it is worth
the time: dead relays cost it a few connect time-outs in all, and refusals of its own a few relays.
A relay that lacks something (its size limit, SMTPUTF8) is left too, and nobody bounces for it while
another is untried. If those others are at fault, the message comes back to a relay that can carry
it to some of its recipients; the rest is deferred, since a relay that may serve them is only out of
order.
"""

from everpost.model.outcome import Bounced, Deferred, Tried

__all__ = ["CONNECTS_PER_CARRY", "REFUSALS_PER_CARRY", "Course"]

CONNECTS_PER_CARRY = 3
"""Connect time-outs that one message waits for in all, before it goes back to its queue."""

REFUSALS_PER_CARRY = 3
"""Relays that answer and refuse it, before it goes back: then it may be the message."""


class Course:
    """One message's way from relay to relay. `patience`: seconds that faults may cost it in all.
    `tried`: the relays not to be asked now; `left`: those that it left, and why; `refused`: by whom
    it was refused itself; `fault`: what the last relay at fault was guilty of, or None; `back`:
    whether it came back to a relay that lacks something, since nothing else is left."""

    __slots__ = ("_partly", "_patience", "_refusals", "back", "fault", "left", "refused", "tried")

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._refusals = 0
        self._partly: frozenset[bytes] = frozenset()
        self.tried: frozenset[bytes] = frozenset()
        self.left: tuple[Tried, ...] = ()
        self.refused: tuple[tuple[bytes, Deferred], ...] = ()
        self.fault: Deferred | None = None
        self.back = False

    @property
    def over(self) -> bool:
        return self._patience <= 0 or self._refusals >= REFUSALS_PER_CARRY

    def arrived(self, relay: bytes) -> None:
        self.tried |= {relay}

    def leaves(self, relay: str, why: Bounced | Deferred) -> None:
        """It goes on to another relay, if there is one."""
        said = why.reason if isinstance(why, Deferred) and why.reply is None else str(why.reply)
        self.left += (Tried(relay, why.phase, said),)

    def at_fault(self, relay: bytes, refusal: Deferred, *, took: float, session: bool) -> None:
        """The relay failed the message, after so many seconds; `session`: it was ready for mail."""
        self.fault = refusal
        if session:
            self._refusals += 1
            self.refused += ((relay, refusal),)
        else:
            self._patience -= took

    def out_of_service(self, why: Deferred) -> None:
        """The relays that were not tried are out of order."""
        if self.fault is None:
            self.fault = why

    def could_partly(self, relay: bytes) -> None:
        """This relay was left though it can serve some of the recipients."""
        self._partly |= {relay}

    def turn_back(self) -> bool:
        """Nothing else is left: whether to go back to a relay that can serve some."""
        if self.back or self.fault is None or not self._partly:
            return False
        self.back = True
        self.tried -= self._partly
        self._refusals = min(self._refusals, REFUSALS_PER_CARRY - 1)
        self._patience = max(self._patience, 0.001)
        return True
