"""What dispatch processes tell each other of destination sites, as notes: cool-downs, and who has
passed a greylist. Doing; `delivery.shaping` decides. One topic of the exchange between processes.
"""

from collections.abc import Sequence

from everpost.delivery import Carrier, News
from everpost.store.sharing import Note

__all__ = ["SiteNews"]


class SiteNews:
    """The carrier's word on sites, to the others and from them."""

    kinds: Sequence[str] = ("cooldown", "greylist")

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    def news(self, now: int) -> Sequence[Note]:
        """What was found out here since the last call, and holds at `now` (milliseconds) yet."""
        found = self._carrier.shaper.news()
        return [
            Note(one.kind, one.key, one.data, one.expires_at)
            for one in found
            if one.expires_at > now
        ]

    def learn(self, notes: Sequence[Note]) -> None:
        """What others found out."""
        self._carrier.learn_sites(
            News(note.kind, note.key, note.data, note.expires_at) for note in notes
        )
