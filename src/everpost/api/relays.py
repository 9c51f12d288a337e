"""Relays: what they are, how they do, a test of one. The rules are catalog's."""

from collections.abc import Sequence

from everpost import ids
from everpost.api import relay_views as views
from everpost.api.bodies import RelayTestBody
from everpost.api.lists import page_by_id
from everpost.api.relay_shapes import RelayAnswer, RelayDetailAnswer, RelayStatusAnswer
from everpost.api.requests import Request
from everpost.api.services import Services
from everpost.api.shapes import Created, DeletedAnswer, ListAnswer
from everpost.catalog import NewRelay, RelayFields, RelayView
from everpost.intake import Draft, for_relay
from everpost.model.errors import Conflict, Missing, NotFound
from everpost.monitoring.relay_status import KINDS, relay_statuses

__all__ = [
    "add_relay", "get_relay", "list_relays", "patch_relay", "relays_status", "remove_relay",
    "test_relay",
]  # fmt: skip

_ABSENT = "Relay not found"
_TEST_LIFETIME_S = 600


async def add_relay(services: Services, request: Request, body: NewRelay) -> RelayAnswer:
    """Add a relay. Its password is sealed and never shown."""
    return views.relay(await services.relays.add(request.credential, body))


async def list_relays(services: Services, request: Request) -> ListAnswer[RelayAnswer]:
    """All relays, oldest first."""
    await services.directory.refresh()
    found = services.relays.list(request.credential)
    return page_by_id([views.relay(each) for each in found], request)


async def get_relay(services: Services, request: Request) -> RelayDetailAnswer:
    """One relay, and how it does."""
    await services.directory.refresh()
    view = services.relays.get(request.credential, request.id_of(_ABSENT))
    (status,) = await _statuses(services, [view])
    return views.relay_detail(view, status)


async def relays_status(services: Services, request: Request) -> ListAnswer[RelayStatusAnswer]:
    """How all relays do, oldest first: what every process saw in the last minute, and what is known
    of their health."""
    await services.directory.refresh()
    return ListAnswer(await _statuses(services, services.relays.list(request.credential)))


async def _statuses(services: Services, relays: Sequence[RelayView]) -> list[RelayStatusAnswer]:
    _, notes = await services.store.noted(KINDS)
    now = services.clock.now()
    # Of these rows: the directory's may have changed while the notes were read.
    found = relay_statuses([view.row for view in relays], notes, now=now)
    return [
        views.relay_status(status, services.relays.load(status.relay), now=now) for status in found
    ]


async def patch_relay(services: Services, request: Request, body: RelayFields) -> RelayAnswer:
    """Change what is given of a relay, or enable, drain or disable it. Null gives a field its
    default. It takes effect in every process within two seconds."""
    id_ = request.id_of(_ABSENT)
    return views.relay(await services.relays.change(request.credential, id_, body))


async def remove_relay(services: Services, request: Request) -> DeletedAnswer:
    """Forget a relay, and take it out of its pools. 409 when that leaves nothing of a pool that
    mail is sent to."""
    id_ = request.id_of(_ABSENT)
    if not await services.relays.remove(request.credential, id_):
        raise NotFound(_ABSENT)
    return DeletedAnswer("relay", ids.text(id_))


async def test_relay(services: Services, request: Request, body: RelayTestBody) -> Created:
    """Send one real message through this relay alone, whatever its state; it is tried for ten
    minutes. Read what came of it at `/emails/{id}/recipients`."""
    await services.directory.refresh()
    view = services.relays.get(request.credential, request.id_of(_ABSENT))
    sender = body.sender
    if sender is None:
        domain = services.domains.first_verified(request.credential)
        if domain is None:
            raise Missing(
                "Missing `from` field. There is no verified domain to take it from.", field="from"
            )
        sender = f"postmaster@{domain}"
    draft = Draft(
        sender=sender,
        to=(body.to,),
        subject=f"Test of the relay {view.row.name}",
        text=f"This message was sent through the relay {view.row.name} to test it.\n",
        expires_in=_TEST_LIFETIME_S,
    )
    prepared = services.intake.prepare(request.credential, draft)
    if prepared.message.sandbox:
        raise Conflict("This project's mail is caught by the sandbox: a relay sees none of it.")
    prepared = for_relay(prepared, view.row.id)
    await services.intake.accept(request.credential, (prepared,), answer=b"")
    return Created(ids.text(prepared.message.id))
