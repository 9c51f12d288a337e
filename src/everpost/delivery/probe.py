"""One probe of a smart host: a session without mail, from connecting to RSET, and QUIT.

It goes as far as MAIL, since a relay may answer EHLO and refuse all mail (F61), and no further: no
recipient is named and no message counted.
"""

import msgspec

from everpost.delivery.route import FarEnd
from everpost.delivery.session import Outset, Session
from everpost.model.outcome import Deferred
from everpost.model.relay import Relay

__all__ = ["Probed", "probe"]


class Probed(msgspec.Struct, frozen=True):
    """What a probe found: why the relay takes no mail, or None; `took` is in seconds."""

    refusal: Deferred | None
    took: float


async def probe(relay: Relay, sender: str, outset: Outset) -> Probed:
    """Open one connection by the relay's own time limits, and close it. Never raises for what the
    far end does; when cancelled it hangs up."""
    started = outset.clock.monotonic()
    session = Session(relay, FarEnd(relay.host, relay.port), outset)
    try:
        refusal = await session.open()
        if refusal is None:
            refusal = await session.try_sender(sender)
        took = outset.clock.monotonic() - started
        await session.leave()
    except BaseException:
        session.abort()
        raise
    return Probed(refusal, took)
