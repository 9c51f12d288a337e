"""Pools, and routes to them. The rules are catalog's."""

from everpost import ids
from everpost.api import relay_views as views
from everpost.api.bodies import ExplainBody
from everpost.api.lists import page_by_id, page_by_position
from everpost.api.relay_shapes import PoolAnswer, RouteAnswer, WayAnswer
from everpost.api.requests import Request
from everpost.api.services import Services
from everpost.api.shapes import DeletedAnswer, ListAnswer
from everpost.catalog import NewPool, NewRoute, PoolFields, RouteFields
from everpost.ids import Id
from everpost.model.address import destination, parse_mailbox
from everpost.model.errors import NotFound
from everpost.model.pool import with_default
from everpost.store.interface import PoolRow, RouteRow

__all__ = [
    "add_pool", "add_route", "explain_route", "get_pool", "get_route", "list_pools", "list_routes",
    "patch_pool", "patch_route", "remove_pool", "remove_route",
]  # fmt: skip

_NO_POOL = "Pool not found"
_NO_ROUTE = "Route not found"
_DEFAULT_STREAM = "transactional"


async def add_pool(services: Services, request: Request, body: NewPool) -> PoolAnswer:
    """Make a pool. One named `default` takes the place of the one that holds every relay."""
    return _pool(services, await services.pools.add(request.credential, body))


async def list_pools(services: Services, request: Request) -> ListAnswer[PoolAnswer]:
    """All pools, oldest first. Without one named `default`, a pool of that name holds every relay,
    in one tier."""
    await services.directory.refresh()
    rows = services.pools.list(request.credential)
    return page_by_id([_pool(services, row) for row in rows], request)


async def get_pool(services: Services, request: Request) -> PoolAnswer:
    """One pool."""
    await services.directory.refresh()
    return _pool(services, services.pools.get(request.credential, request.id_of(_NO_POOL)))


async def patch_pool(services: Services, request: Request, body: PoolFields) -> PoolAnswer:
    """Change what is given of a pool; null gives a field its default. It takes effect in every
    process within two seconds."""
    id_ = request.id_of(_NO_POOL)
    return _pool(services, await services.pools.change(request.credential, id_, body))


async def remove_pool(services: Services, request: Request) -> DeletedAnswer:
    """Forget a pool; its relays stay. 409 while a route or a stream sends mail to it."""
    id_ = request.id_of(_NO_POOL)
    if not await services.pools.remove(request.credential, id_):
        raise NotFound(_NO_POOL)
    return DeletedAnswer("pool", ids.text(id_))


def _pool(services: Services, row: PoolRow) -> PoolAnswer:
    return views.pool(row, _relay_names(services))


def _relay_names(services: Services) -> dict[Id, str]:
    return {relay.id: relay.name for relay in services.directory.now.relays}


async def add_route(services: Services, request: Request, body: NewRoute) -> RouteAnswer:
    """Make a route. Mail goes to the pool of the first route that fits in all that it says."""
    return _route(services, await services.routes.add(request.credential, body))


async def list_routes(services: Services, request: Request) -> ListAnswer[RouteAnswer]:
    """All routes, in the order in which they are tried."""
    await services.directory.refresh()
    rows = services.routes.list(request.credential)
    return page_by_position([_route(services, row) for row in rows], request)


async def get_route(services: Services, request: Request) -> RouteAnswer:
    """One route."""
    await services.directory.refresh()
    return _route(services, services.routes.get(request.credential, request.id_of(_NO_ROUTE)))


async def patch_route(services: Services, request: Request, body: RouteFields) -> RouteAnswer:
    """Change what is given of a route; null takes a condition away; `position` moves it. It takes
    effect in every process within two seconds, for mail that waits, too."""
    id_ = request.id_of(_NO_ROUTE)
    return _route(services, await services.routes.change(request.credential, id_, body))


async def remove_route(services: Services, request: Request) -> DeletedAnswer:
    """Forget a route."""
    id_ = request.id_of(_NO_ROUTE)
    if not await services.routes.remove(request.credential, id_):
        raise NotFound(_NO_ROUTE)
    return DeletedAnswer("route", ids.text(id_))


def _route(services: Services, row: RouteRow) -> RouteAnswer:
    return views.route(row, {pool.id: pool.name for pool in services.directory.now.pools})


async def explain_route(services: Services, request: Request, body: ExplainBody) -> WayAnswer:
    """Which pool a mail would go to now, and why. Nothing is sent."""
    await services.directory.refresh()
    found = services.routes.explain(
        request.credential,
        project=request.credential.project if body.project is None else body.project,
        stream=body.stream or _DEFAULT_STREAM,
        sender_domain=destination(parse_mailbox(body.sender, field="from").address),
        recipient_domain=destination(parse_mailbox(body.to, field="to").address),
        tags=[(tag.name, tag.value) for tag in body.tags or ()],
    )
    names = _relay_names(services)
    pools = with_default(services.pools.load_all(), tuple(names))
    (tiers,) = (pool.tiers for pool in pools if pool.name == found.pool)
    return views.way(found, [[names[id_] for id_ in tier] for tier in tiers])
