"""Sockets: the one room that opens them, for listening, for TCP and TLS, for DNS and HTTP out.

Promises: every wait has a deadline, every buffer a bound, every address is checked before it is
connected to. Protocol knowledge and policy must not live here: bytes pass through unread.
Import the module that is needed (`listener`, `streams`, `conversation`, `resolver`, …).
"""

__all__: list[str] = []
