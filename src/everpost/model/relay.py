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
    `repr`. `connections` is the cap of one process. `signed_headers`, when given, replaces DKIM's
    default list (some providers rewrite Date and Message-ID). `eight_bit` allows the 8BITMIME form
    where offered (RFC 6376 §5.3 advises 7-bit for signed mail). `source` holds the local addresses
    to connect from, one a family at most; with any, a family that has none is not used.

    Of kind mx, `host` says nothing, `connections` counts all sessions of one process and
    `destination_connections` those to one destination; `allow_private` lets it connect to addresses
    that are not public (see net.addresses).
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
    connections: int = 10
    weight: int = 1
    site: str | None = None
    state: RelayState = RelayState.ENABLED
    signed_headers: tuple[str, ...] | None = None
    eight_bit: bool = False
    source: tuple[str, ...] = ()
    destination_connections: int = 10
    allow_private: bool = False

    def __repr__(self) -> str:
        if self.kind is RelayKind.MX:
            return f"<Relay {self.name} mx:{self.port}>"
        scheme = "smtps" if self.implicit_tls else "smtp"
        return f"<Relay {self.name} {scheme}://{self.host}:{self.port}>"
