"""How long each phase of a conversation with a mail server may take."""

from dataclasses import dataclass

__all__ = ["TOWARDS_MX", "Timeouts"]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. RFC 5321 §4.5.3.2 gives the later ones; a pool has other relays to turn to, so it
    waits less for a connection and a greeting (RULINGS "Timeouts")."""

    connect: float = 5.0
    """For the TCP connection, name lookup included."""
    greet: float = 10.0
    """For the banner, EHLO, STARTTLS, the TLS handshake and each step of a login."""
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    """For each block of content to be taken."""
    dot: float = 600.0
    """For the answer to the final dot: giving up earlier makes duplicates (RFC 5321 §4.5.3.2.6)."""
    idle: float = 10.0
    """An idle session is kept so long for the next message."""
    quit: float = 2.0
    """For the answer to QUIT, before hanging up anyway."""


TOWARDS_MX = Timeouts(connect=30.0, greet=300.0)
"""An MX host has no stand-in: RFC 5321 §4.5.3.2.1 gives its greeting five minutes. The RFC leaves
the connection open; 30 s is Postfix's, and passes over several lost packets."""
