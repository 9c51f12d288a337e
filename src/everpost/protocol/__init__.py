"""Wire protocols without I/O: bytes in, events out.

Promises: no module here opens a socket, a file or a clock; every buffer is bounded; every input,
split at any byte, gives the same events; after an error a protocol is broken and says so. Policy
must not live here: what an answer means for a delivery, or whether a sender is welcome, is decided
by the owner of the protocol object.
"""

__all__: list[str] = []
