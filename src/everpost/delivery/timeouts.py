"""How long each phase of a conversation with a relay may take."""

from dataclasses import dataclass

__all__ = ["Timeouts"]


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
