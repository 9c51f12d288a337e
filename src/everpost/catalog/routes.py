"""Routes: which mail goes to which pool. They belong to the server; the first that fits decides."""

from collections.abc import Sequence

import msgspec

from everpost.catalog.checks import must_operate
from everpost.catalog.fields import NewRoute, RouteFields
from everpost.catalog.pool_form import (
    MOST_ROUTES,
    change_route,
    check_tags,
    find_project,
    read_route,
)
from everpost.catalog.unusable import Unusable
from everpost.clock import Clock
from everpost.ids import Id, IdMaker
from everpost.model.credential import Credential
from everpost.model.errors import Conflict, NotFound
from everpost.model.pool import Route, Way, way_of
from everpost.store.directory import Directory
from everpost.store.interface import Catalog, Change, RouteRow

__all__ = ["Routes", "in_order", "moved"]


class Routes:
    """All routes of this server. Their positions count from 1 without gaps."""

    def __init__(self, store: Catalog, directory: Directory, *, clock: Clock, ids: IdMaker) -> None:
        self._store = store
        self._directory = directory
        self._clock = clock
        self._ids = ids
        self._unusable = Unusable("route")

    async def add(self, credential: Credential, given: NewRoute) -> RouteRow:
        """A new route at its position, those from there on moving one on; else the last. Raises
        Invalid, Forbidden; Conflict when the name is taken."""
        must_operate(credential)
        rows = list(await self._store.routes())
        form = read_route(given, await self._store.pools(), await self._store.projects())
        _refuse_taken(form.name, rows)
        if len(rows) >= MOST_ROUTES:
            raise Conflict(f"There may be at most {MOST_ROUTES} routes.")
        row = RouteRow(
            id=self._ids(),
            name=form.name,
            position=0,
            pool=form.pool,
            settings=form.settings,
            created_at=self._clock.now(),
        )
        ordered = in_order(rows, row, form.position)
        await self._write(credential, rows, ordered, row.id, "route.add")
        return _of(ordered, row.id)

    def list(self, credential: Credential) -> Sequence[RouteRow]:
        """All routes, by position."""
        must_operate(credential)
        return self._directory.now.routes

    def get(self, credential: Credential, id_: Id) -> RouteRow:
        """Raises NotFound."""
        must_operate(credential)
        return _of(self._directory.now.routes, id_)

    async def change(self, credential: Credential, id_: Id, given: RouteFields) -> RouteRow:
        """Change what is given; with `position`, move it there. What changes nothing is not
        written. Raises Invalid, NotFound; Conflict when the name is taken."""
        must_operate(credential)
        rows = list(await self._store.routes())
        row = _of(rows, id_)
        form = change_route(row, given, await self._store.pools(), await self._store.projects())
        _refuse_taken(form.name, rows, known=id_)
        changed = msgspec.structs.replace(
            row, name=form.name, pool=form.pool, settings=form.settings
        )
        place = rows.index(row) + 1 if form.position is None else form.position
        ordered = in_order([each for each in rows if each.id != id_], changed, place)
        await self._write(credential, rows, ordered, id_, "route.change")
        return _of(ordered, id_)

    async def remove(self, credential: Credential, id_: Id) -> bool:
        """Forget a route; False when there is none."""
        must_operate(credential)
        rows = await self._store.routes()
        if not any(row.id == id_ for row in rows):
            return False
        left = in_order([row for row in rows if row.id != id_])
        changes = [Change("route.remove", drop=("route", id_))]
        changes += [Change("route.move", row) for row in moved(rows, left)]
        await self._store.change(changes, actor=credential.actor)
        await self._directory.refresh()
        return True

    async def _write(
        self,
        credential: Credential,
        was: Sequence[RouteRow],
        now: Sequence[RouteRow],
        id_: Id,
        action: str,
    ) -> None:
        changes = [
            Change(action if row.id == id_ else "route.move", row) for row in moved(was, now)
        ]
        if changes:
            await self._store.change(changes, actor=credential.actor)
            await self._directory.refresh()

    def load_all(self) -> Sequence[Route]:
        """Every route of the directory, by position. A row that cannot be read raises the alarm
        `route_unusable:<name>` and is left out: its mail goes by the next that fits."""
        now = self._directory.now
        self._unusable.only(row.name for row in now.routes)
        pools = {pool.id: pool.name for pool in now.pools}
        loaded = (self._load(row, pools) for row in now.routes)
        return [route for route in loaded if route is not None]

    def _load(self, row: RouteRow, pools: dict[Id, str]) -> Route | None:
        try:
            route = msgspec.convert(
                {**row.settings, "name": row.name, "pool": pools.get(row.pool)}, Route
            )
        except msgspec.ValidationError as error:
            self._unusable.found(row.name, reason="its row", error=error)
            return None
        self._unusable.fine(row.name)
        return route

    def explain(
        self,
        credential: Credential,
        *,
        project: int | str,
        stream: str,
        sender_domain: str,
        recipient_domain: str,
        tags: Sequence[tuple[str, str]],
    ) -> Way:
        """Which way such a mail would take now. `project` is an id or a name; domains are A-labels
        in lower case. Raises Invalid for a project that is none, and tags that no mail can have."""
        must_operate(credential)  # before anything tells what there is
        check_tags(tags)
        now = self._directory.now
        project = find_project(list(now.projects.values()), project).id
        row = now.streams.get((project, stream))
        return way_of(
            self.load_all(),
            {pool.name for pool in now.pools},
            project=project,
            stream=stream,
            sender_domain=sender_domain,
            recipient_domain=recipient_domain,
            tags=tags,
            stream_pool=None if row is None else row.pool,
        )


def in_order(
    rows: Sequence[RouteRow], row: RouteRow | None = None, place: int | None = None
) -> list[RouteRow]:
    """The rows with `row` at its place among them (from 1; None or beyond: the last), positions
    counted anew."""
    ordered = list(rows)
    if row is not None:
        ordered.insert(len(ordered) if place is None else place - 1, row)
    return [
        each if each.position == n else msgspec.structs.replace(each, position=n)
        for n, each in enumerate(ordered, 1)
    ]


def moved(was: Sequence[RouteRow], now: Sequence[RouteRow]) -> list[RouteRow]:
    """Rows of `now` that are new, or not as they were."""
    before = {row.id: row for row in was}
    return [row for row in now if before.get(row.id) != row]


def _of(rows: Sequence[RouteRow], id_: Id) -> RouteRow:
    for row in rows:
        if row.id == id_:
            return row
    raise NotFound("Route not found")


def _refuse_taken(name: str, rows: Sequence[RouteRow], *, known: Id | None = None) -> None:
    if any(row.name == name and row.id != known for row in rows):
        raise Conflict(f"A route named {name} exists already; give another `name`", field="name")
