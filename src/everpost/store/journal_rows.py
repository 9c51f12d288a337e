"""What lies in a node's journal file, as rows: requests that were accepted while no database
answered, each sealed into one body that only `journal` reads."""

import msgspec

__all__ = ["JournalRow", "JournalSize", "NewJournalRow"]


class NewJournalRow(msgspec.Struct, frozen=True, gc=False):
    """One request to be written. `first` is the id of its first message, by which it is known: a
    second one with the same is not written. `origin` names the node that accepted it, `at` is when,
    in milliseconds since 1970."""

    first: bytes
    origin: str
    at: int
    body: bytes


class JournalRow(msgspec.Struct, frozen=True, gc=False):
    """One that was written. `number` grows with each. `copied`: a peer has it, too. `body` is None
    where the file is damaged: its checksum does not fit, or it cannot be read."""

    number: int
    at: int
    copied: bool
    body: bytes | None


class JournalSize(msgspec.Struct, frozen=True, gc=False):
    """How much there is. `pending`: what no database has yet, the oldest of it from `oldest`
    (milliseconds since 1970; None: there is none). `entries` and `octets` count what is kept after
    that, too."""

    pending: int = 0
    oldest: int | None = None
    entries: int = 0
    octets: int = 0
    damaged: int = 0
