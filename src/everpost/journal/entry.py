"""One request as the journal keeps it, and as it travels to a peer: MessagePack by field names, so
that nodes of two releases understand each other."""

import msgspec

from everpost.ids import Id
from everpost.model.message import Assurance, NewMessage
from everpost.store.interface import IdempotencyKey

__all__ = ["Entry", "decode", "encode"]


class Entry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Everything of one accepted request. `origin` is the node that answered it, `at` when
    (milliseconds since 1970), `timeline` the store's last known one. Fields are a format: append
    only, each with a default."""

    origin: str
    at: int
    timeline: int
    project: int
    messages: tuple[NewMessage, ...]
    key: IdempotencyKey | None = None

    @property
    def first(self) -> Id:
        """What names it: no two entries share a message."""
        return self.messages[0].id

    def answered(self, assurance: Assurance) -> tuple[NewMessage, ...]:
        """Its messages, with what was answered for them."""
        return tuple(
            msgspec.structs.replace(message, durability=assurance) for message in self.messages
        )


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def decode(body: bytes) -> Entry:
    """Raises ValueError for what is no entry, or has no message."""
    try:
        entry = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"no entry of a journal: {error}") from error
    if not entry.messages or any(each.project != entry.project for each in entry.messages):
        raise ValueError("an entry without messages, or with those of another project")
    return entry
