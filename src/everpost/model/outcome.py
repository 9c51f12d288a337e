"""What came of handing one recipient to a mail server. Answers of the far end are values.

Temporary unless known to be permanent; a relay's own refusal never bounces a recipient.
"""

from enum import StrEnum
from typing import Any

import msgspec

__all__ = [
    "Abandoned",
    "AttemptRecord",
    "Bounced",
    "Deferred",
    "Delivered",
    "Ending",
    "Failed",
    "InDoubt",
    "Mark",
    "Outcome",
    "Phase",
    "Reply",
    "Speaker",
    "TlsFacts",
    "Tried",
    "Via",
]


class Phase(StrEnum):
    """Where in a delivery something happened."""

    ROUTE = "route"
    COMPOSE = "compose"
    CONNECT = "connect"
    GREET = "greet"
    SECURE = "secure"
    LOGIN = "login"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    DOT = "dot"


class Speaker(StrEnum):
    """Who refused: ourselves, the relay on its own account, or the destination."""

    SELF = "self"
    RELAY = "relay"
    DESTINATION = "destination"


class Via(StrEnum):
    """What took a message: a smart host (the rest of the way is its own), a destination's own MX
    host, or the sandbox."""

    RELAY = "relay"
    MX = "mx"
    SANDBOX = "sandbox"


class Mark(StrEnum):
    """What an answer is about, where that decides more than the one recipient's fate. mailbox: it
    wants less, but only this mailbox does. greylist: it takes the same message a little later, from
    the same source. block: it is our source address that is refused, another may do."""

    MAILBOX = "mailbox"
    GREYLIST = "greylist"
    BLOCK = "block"


class Reply(msgspec.Struct, frozen=True, gc=False):
    """An SMTP answer. `text` holds all its lines joined by newlines, printable, bounded;
    `enhanced` is `5.1.1` where the answer had one (RFC 3463)."""

    code: int
    text: str
    enhanced: str | None = None

    def __str__(self) -> str:
        enhanced = f" {self.enhanced}" if self.enhanced else ""
        return f"{self.code}{enhanced} {self.text}"


class Delivered(msgspec.Struct, frozen=True, tag="delivered", gc=False):
    """The far end took the responsibility."""

    reply: Reply
    via: Via = Via.RELAY


class Deferred(msgspec.Struct, frozen=True, tag="deferred", gc=False):
    """Not now. `relay_fault`: the relay itself is at fault, another one may be tried at once.
    `throttle`: whoever spoke asks us to send less. `rule`: the row of the classification that
    decided, where an answer did. `until`: not before this moment (milliseconds); `untried`: nothing
    was tried, so it is no attempt."""

    reason: str
    phase: Phase
    speaker: Speaker
    reply: Reply | None = None
    relay_fault: bool = False
    throttle: bool = False
    rule: str | None = None
    mark: Mark | None = None
    until: int | None = None
    untried: bool = False


class Bounced(msgspec.Struct, frozen=True, tag="bounced", gc=False):
    """The destination refused for good. `hard`: the address itself is no good, for any message;
    else this message was refused (its content, its size, a policy, a full mailbox). `rule` and
    `mark` as in a deferral."""

    reply: Reply
    phase: Phase
    speaker: Speaker = Speaker.DESTINATION
    hard: bool = False
    rule: str | None = None
    mark: Mark | None = None

    @property
    def kind(self) -> str:
        """`hard` or `soft`, as people read it."""
        return "hard" if self.hard else "soft"


class Failed(msgspec.Struct, frozen=True, tag="failed", gc=False):
    """Our own end gives up: policy, configuration, content that cannot be composed."""

    reason: str
    phase: Phase
    enhanced: str = "5.3.0"


class InDoubt(msgspec.Struct, frozen=True, tag="in_doubt", gc=False):
    """The final dot may have left and no answer to it was read."""

    reason: str


class Abandoned(msgspec.Struct, frozen=True, tag="abandoned", gc=False):
    """The attempt's process ended before any final dot left: nothing was delivered."""

    reason: str


Outcome = Delivered | Deferred | Bounced | Failed | InDoubt
"""What delivery answers for one recipient."""

Ending = Outcome | Abandoned
"""How an attempt ended, as the record keeps it."""


class TlsFacts(msgspec.Struct, frozen=True, gc=False):
    """How a session was protected. `verified`: the certificate matched name and trust anchors."""

    version: str
    cipher: str
    verified: bool
    peer: str | None = None


class Tried(msgspec.Struct, frozen=True, gc=False):
    """A relay that a message left for another one, and why: within one attempt."""

    relay: str
    phase: Phase
    reason: str


class AttemptRecord(msgspec.Struct, frozen=True, gc=False):
    """What every recipient of one transaction shares. Times: milliseconds since 1970; `timings`
    are milliseconds spent per phase. `body_hash` is the composer's version (one byte) and the
    SHA-256 of the composed body in `form`. `tried`: the relays that were asked before `relay`."""

    started_at: int
    ended_at: int
    relay: str | None = None
    relay_id: bytes | None = None
    host: str | None = None
    peer: str | None = None
    tls: TlsFacts | None = None
    timings: dict[str, float] = msgspec.field(default_factory=dict)
    form: str | None = None
    body_hash: bytes | None = None
    transaction: bytes | None = None
    tried: tuple[Tried, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Builtins for the API and for storage; bytes become hex."""
        built: dict[str, Any] = msgspec.to_builtins(self, builtin_types=(bytes,))
        return {k: v.hex() if isinstance(v, bytes) else v for k, v in built.items()}
