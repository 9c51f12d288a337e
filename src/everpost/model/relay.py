"""A relay: a mail server that we hand mail to, and how."""

from enum import StrEnum

import msgspec

__all__ = ["Relay", "RelayKind", "RelayState", "TlsPolicy"]


class RelayKind(StrEnum):
    """Where its mail goes. smart_host: all to one server, which carries it on. mx: straight to the
    mail hosts of each destination (RFC 5321 §5.1)."""

    SMART_HOST = "smart_host"
    MX = "mx"


class TlsPolicy(StrEnum):
    """What TLS a session must have.

    none: never ask. opportunistic: use STARTTLS where offered, any certificate, else clear.
    require: no mail without TLS, any certificate. verify: TLS with a certificate that matches.
    """

    NONE = "none"
    OPPORTUNISTIC = "opportunistic"
    REQUIRE = "require"
    VERIFY = "verify"


class RelayState(StrEnum):
    ENABLED = "enabled"
    DRAINING = "draining"
    DISABLED = "disabled"


class Relay(msgspec.Struct, frozen=True, kw_only=True):
    """A relay as delivery needs it. `password` is a secret in clear: it never reaches logs or
    `repr`. `connections` is the cap over all processes, as are `messages_per_second`, `_per_minute`
    and `_per_day` (UTC; None: no limit); a session is replaced after `messages_per_connection`.
    `signed_headers`, when given, replaces DKIM's
    default list (some providers rewrite Date and Message-ID). `eight_bit` allows the 8BITMIME form
    where offered (RFC 6376 §5.3 advises 7-bit for signed mail). `source` holds the local addresses
    to connect from, one a family at most; with any, a family that has none is not used.

    Of kind mx, `host` says nothing, `connections` counts all sessions and
    `destination_connections` those to one destination's site; `allow_private` lets it connect to
    addresses that are not public (see net.addresses). `warmup` is the day plan of a source address
    that nobody knows yet: messages on the first day, the second …, counted from `warmup_from`
    (milliseconds); afterwards it is warm.

    `probe`: whether it is tried now and then without mail; `probe_sender` is the MAIL FROM of that.
    """

    id: bytes
    name: str
    host: str
    kind: RelayKind = RelayKind.SMART_HOST
    port: int = 25
    implicit_tls: bool = False
    tls: TlsPolicy = TlsPolicy.OPPORTUNISTIC
    username: str | None = None
    password: str | None = None
    auth: str | None = None
    helo: str | None = None
    connections: int = 20
    weight: int = 1
    site: str | None = None
    state: RelayState = RelayState.ENABLED
    signed_headers: tuple[str, ...] | None = None
    eight_bit: bool = False
    source: tuple[str, ...] = ()
    destination_connections: int = 20
    allow_private: bool = False
    messages_per_connection: int = 1000
    messages_per_second: int | None = None
    messages_per_minute: int | None = None
    messages_per_day: int | None = None
    warmup: tuple[int, ...] = ()
    warmup_from: int = 0
    probe: bool = True
    probe_sender: str | None = None

    def __repr__(self) -> str:
        if self.kind is RelayKind.MX:
            return f"<Relay {self.name} mx:{self.port}>"
        scheme = "smtps" if self.implicit_tls else "smtp"
        return f"<Relay {self.name} {scheme}://{self.host}:{self.port}>"
