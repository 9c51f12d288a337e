"""What is shown of a message that only a journal has."""

from everpost.ids import Id, made_at
from everpost.journal.book import Journal
from everpost.journal.entry import decode
from everpost.model.message import Assurance, NewMessage
from everpost.model.states import State
from everpost.store.interface import EventRow, MessageRow, RecipientRow

__all__ = ["Lookup", "as_row"]


class Lookup:
    """Finds messages that wait in this node's journal: its own, and copies of its peers'."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def holds(self, project: int, message: Id) -> bool:
        """From memory."""
        return self._journal.find(project, message) is not None

    async def message(self, project: int, message: Id) -> MessageRow | None:
        """None: no database was said to have it, and this node has not got it either. Raises
        StoreUnavailable."""
        held = self._journal.find(project, message)
        row = None if held is None else await self._journal.book.row(held.number)
        if held is None or row is None or row.body is None:
            return None
        for each in decode(row.body).messages:
            if each.id == message:
                return as_row(each, held.assurance)
        return None

    def events(self, row: MessageRow) -> list[EventRow]:
        """All that has happened to it."""
        told = {"recipients": len(row.recipients)}
        return [EventRow(row.id, 1, None, "accepted", row.created_at, told)]


def as_row(message: NewMessage, assurance: Assurance) -> MessageRow:
    """As the store will show it once it has it. Pure."""
    return MessageRow(
        id=message.id,
        project=message.project,
        stream=message.stream,
        created_at=made_at(message.id),
        message_id=message.message_id,
        sender=message.sender,
        subject=message.subject,
        to=message.to,
        cc=message.cc,
        bcc=message.bcc,
        reply_to=message.reply_to,
        tags=message.tags,
        metadata=message.metadata,
        scheduled_at=message.scheduled_at,
        expires_at=message.expires_at,
        in_doubt=message.in_doubt,
        dialect=message.dialect,
        sandbox=message.sandbox,
        durability=assurance.value,
        size=message.size,
        recipients=[
            RecipientRow(
                n=n,
                address=to.address,
                destination=to.destination,
                kind=to.kind.value,
                state=State.QUEUED,
                reason=None,
                route=f"{message.project}/{message.stream}/{to.destination}",
                attempts=0,
                not_before=message.not_before,
                expires_at=message.expires_at,
                settled_at=None,
                via=None,
            )
            for n, to in enumerate(message.recipients, 1)
        ],
        key_id=message.key_id,
        content_id=message.id,
        sealed=message.sealed,
    )
