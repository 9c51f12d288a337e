"""SMTP on the wire (RFC 5321 and its extensions), both ends, without I/O.

`grammar` says what an address, a path and a framed message are; `server` is the accepting end:
feed it bytes, take events, answer each with a verdict, send what it wrote. Sockets, deadlines,
retries and policy must not live here.
"""

from everpost.protocol.smtp.grammar import (
    dot_stuff,
    frame,
    has_bare_line_ends,
    is_domain,
    is_mailbox,
    unstuff,
    wire_safe,
)
from everpost.protocol.smtp.server import Limits, Offer, Server
from everpost.protocol.smtp.server_events import (
    Auth,
    Closed,
    Connect,
    Data,
    Event,
    Hello,
    Mail,
    Message,
    Rcpt,
    StartTls,
)

__all__ = [
    "Auth",
    "Closed",
    "Connect",
    "Data",
    "Event",
    "Hello",
    "Limits",
    "Mail",
    "Message",
    "Offer",
    "Rcpt",
    "Server",
    "StartTls",
    "dot_stuff",
    "frame",
    "has_bare_line_ends",
    "is_domain",
    "is_mailbox",
    "unstuff",
    "wire_safe",
]
