"""Where a message goes when a relay cannot carry it. Pure.

A relay at fault is left for another one, as long as nothing can have been delivered. A relay that
lacks something (its size limit, SMTPUTF8) is left too, and nobody bounces for it while another is
untried. If those others are at fault, the message comes back to a relay that can carry it to some
of its recipients; the rest is deferred, since a relay that may serve them is only out of order.
"""

from everpost.model.outcome import Deferred

__all__ = ["RELAYS_PER_CARRY", "Course"]

RELAYS_PER_CARRY = 2
"""Relays at fault that one message meets before it goes back to its queue."""


class Course:
    """One message's way from relay to relay. `tried`: the relays not to be asked now; `fault`: what
    the last relay at fault was guilty of, or None; `back`: whether it came back to a relay that
    lacks something, since nothing else is left."""

    __slots__ = ("_faults", "_partly", "back", "fault", "tried")

    def __init__(self) -> None:
        self.tried: frozenset[bytes] = frozenset()
        self.fault: Deferred | None = None
        self.back = False
        self._faults = 0
        self._partly: frozenset[bytes] = frozenset()

    @property
    def over(self) -> bool:
        return self._faults >= RELAYS_PER_CARRY

    def arrived(self, relay: bytes) -> None:
        self.tried |= {relay}

    def at_fault(self, refusal: Deferred) -> None:
        self._faults += 1
        self.fault = refusal

    def could_partly(self, relay: bytes) -> None:
        """This relay was left though it can serve some of the recipients."""
        self._partly |= {relay}

    def turn_back(self) -> bool:
        """Nothing else is left: whether to go back to a relay that can serve some."""
        if self.back or self.fault is None or not self._partly:
            return False
        self.back = True
        self.tried -= self._partly
        self._faults = RELAYS_PER_CARRY - 1
        return True
