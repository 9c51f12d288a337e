"""What became of accepted emails: lists, one email, its recipients and timeline; and what a caller
may still do with one: move it, cancel it, hold it and let it go."""

from everpost import ids
from everpost.api import moments, views
from everpost.api.bodies import ReschedulingBody
from everpost.api.requests import Request
from everpost.api.services import Services
from everpost.api.shapes import (
    EmailAnswer,
    EmailItem,
    EmailRef,
    EventAnswer,
    ListAnswer,
    RecipientAnswer,
    SandboxAnswer,
)
from everpost.ids import Id
from everpost.model.errors import Invalid, Missing, NotFound, Unavailable
from everpost.model.states import HeldReason
from everpost.store.interface import AttemptRow, MessageRow

__all__ = [
    "cancel",
    "events",
    "get_email",
    "get_sandbox_email",
    "hold",
    "list_emails",
    "list_sandbox_emails",
    "recipients",
    "release",
    "reschedule",
]

_ABSENT = "Email not found"
_BACK_S = 5


async def list_emails(services: Services, request: Request) -> ListAnswer[EmailItem]:
    """Emails, newest first."""
    return await _list(services, request, sandbox=None)


async def list_sandbox_emails(services: Services, request: Request) -> ListAnswer[EmailItem]:
    """Emails that the sandbox caught, newest first."""
    return await _list(services, request, sandbox=True)


async def _list(
    services: Services, request: Request, *, sandbox: bool | None
) -> ListAnswer[EmailItem]:
    page = request.page()
    rows, more = await services.store.messages(
        request.credential.project,
        limit=page.limit,
        after=page.after,
        before=page.before,
        sandbox=sandbox,
    )
    now = services.clock.now()
    return ListAnswer([views.email_item(row, now=now) for row in rows], more)


async def get_email(services: Services, request: Request) -> EmailAnswer:
    """One email with its content."""
    row, _ = await _found(services, request)
    return views.email(row, services.read_content(row), now=services.clock.now())


async def get_sandbox_email(services: Services, request: Request) -> SandboxAnswer:
    """One email that the sandbox caught, as it would have travelled."""
    row, waits = await _found(services, request)
    if not row.sandbox:
        raise NotFound(_ABSENT)
    if waits:
        raise _not_yet()
    raw = await services.sandbox.raw(request.credential, row.id)
    return views.sandbox_email(row, services.read_content(row), raw, now=services.clock.now())


async def recipients(services: Services, request: Request) -> ListAnswer[RecipientAnswer]:
    """Each recipient and each attempt to reach it: the full SMTP answer, relay, TLS, timings."""
    row, waits = await _found(services, request)
    attempts: dict[int, list[AttemptRow]] = {}
    for attempt in () if waits else await services.store.attempts(row.project, row.id):
        attempts.setdefault(attempt.n, []).append(attempt)
    now = services.clock.now()
    return ListAnswer([views.recipient(each, attempts, now=now) for each in row.recipients])


async def events(services: Services, request: Request) -> ListAnswer[EventAnswer]:
    """The email's timeline, oldest first."""
    row, waits = await _found(services, request)
    if services.journal is not None and waits:
        return ListAnswer([views.event(line) for line in services.journal.events(row)])
    lines = await services.store.events(row.project, row.id)
    return ListAnswer([views.event(line) for line in lines])


async def reschedule(services: Services, request: Request, body: ReschedulingBody) -> EmailRef:
    """Move an email that is still scheduled to another time."""
    id_ = _changeable(services, request)
    text = body.scheduledAt if body.scheduled_at is None else body.scheduled_at
    if text is None:
        raise Missing("Missing `scheduled_at` field.", field="scheduled_at")
    at = await moments.moment(services, text)
    if not await services.controls.reschedule(request.credential.project, id_, at):
        await _found(services, request)
        raise Invalid("This email is not waiting to be sent any more.", field="scheduled_at")
    return EmailRef(ids.text(id_))


async def cancel(services: Services, request: Request) -> EmailRef:
    """Cancel an email that is not on its way to anybody yet, all of it: 422 when one recipient is
    reached, given up or being tried now. After a success nothing goes out."""
    id_ = _changeable(services, request)
    if not await services.controls.cancel(request.credential.project, id_):
        await _found(services, request)
        raise Invalid("This email is not waiting to be sent any more, at least not to everybody.")
    return EmailRef(ids.text(id_))


async def hold(services: Services, request: Request) -> EmailRef:
    """Hold an email: nothing of it goes out until it is released. 422 when no recipient waits."""
    id_ = _changeable(services, request)
    if not await services.controls.hold(request.credential.project, id_, HeldReason.OPERATOR):
        await _found(services, request)
        raise Invalid("No recipient of this email is waiting to be sent to.")
    return EmailRef(ids.text(id_))


async def release(services: Services, request: Request) -> EmailRef:
    """Queue what is held of an email, due at once, whatever it was held for: an operator, an
    attempt in doubt, a process that died of it, damage. 422 when nothing of it is held."""
    id_ = _changeable(services, request)
    if not await services.controls.release(request.credential.project, id_):
        await _found(services, request)
        raise Invalid("No recipient of this email is held.")
    return EmailRef(ids.text(id_))


async def _found(services: Services, request: Request) -> tuple[MessageRow, bool]:
    """A message, and whether it still waits in the journal. Raises NotFound."""
    project, id_ = request.credential.project, request.id_of(_ABSENT)
    if services.journal is not None and services.journal.holds(project, id_):
        row = await services.journal.message(project, id_)
        if row is not None:
            return row, True
    row = await services.store.message(project, id_)
    if row is None:
        raise NotFound(_ABSENT)
    return row, False


def _changeable(services: Services, request: Request) -> Id:
    """The path's id. Raises Unavailable for what no database has yet: nobody else must send it
    meanwhile, which only the database can promise."""
    id_ = request.id_of(_ABSENT)
    journal = services.journal
    if journal is not None and journal.holds(request.credential.project, id_):
        raise _not_yet()
    return id_


def _not_yet() -> Unavailable:
    return Unavailable(
        "This email was accepted into a journal and waits for the database, which does not answer"
        " now. It can be seen, but not changed. Try again later.",
        retry_after=_BACK_S,
    )
