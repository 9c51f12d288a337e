"""What goes in and what comes out of `Carrier.carry`."""

from collections.abc import Awaitable, Callable

import msgspec

from everpost.model.message import Rendered
from everpost.model.outcome import AttemptRecord, Bounced, Deferred, Failed, Outcome
from everpost.model.pool import DEFAULT_POOL
from everpost.model.relay import Relay
from everpost.protocol.smtp.extensions import Extensions

__all__ = ["CannotRender", "Envelope", "Render", "Report"]


class Envelope(msgspec.Struct, frozen=True):
    """Who gets a message. `sender` is the return path (empty: the null path); `transaction` is the
    id of this SMTP transaction, copied into the record. `destination` is the domain that all
    recipients share; without it the message can go to smart hosts only. `pool` names the pool whose
    relays may carry it; `only`, the one relay that may, in whatever state it is."""

    sender: str
    recipients: tuple[str, ...]
    transaction: bytes
    destination: str = ""
    pool: str = DEFAULT_POOL
    only: bytes | None = None


class CannotRender(Exception):
    """Raised by a `Render`: there will be no bytes now. All recipients get `outcome`."""

    def __init__(self, outcome: Deferred | Failed | Bounced) -> None:
        super().__init__(outcome)
        self.outcome = outcome


Render = Callable[[Extensions, Relay], Awaitable[Rendered]]
"""From the far end's extensions, and the relay, to bytes that suit them. May be called again for
another relay."""


class Report(msgspec.Struct, frozen=True):
    """One outcome per recipient, in the envelope's order, and what they share."""

    outcomes: tuple[Outcome, ...]
    record: AttemptRecord
