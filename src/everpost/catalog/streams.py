"""Streams and projects: how their mail is weighed against other mail, and a stream's policies."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from everpost.catalog.checks import count, must_manage, must_operate
from everpost.catalog.fields import ProjectFields, StreamFields, said
from everpost.catalog.pool_form import find_pool
from everpost.model.credential import Credential
from everpost.model.errors import Invalid, NotFound
from everpost.model.message import Assurance
from everpost.model.pool import DEFAULT_POOL
from everpost.model.states import InDoubtPolicy
from everpost.store.directory import Directory
from everpost.store.interface import Catalog, PoolRow, ProjectRow, StreamRow

__all__ = ["Projects", "Streams", "changed_project", "changed_stream"]

_MOST_WEIGHT = 1_000
_DAY_S = 86_400
_LONGEST_LIFE_S = 30 * _DAY_S
_SHORTEST_RETRY_S = 1
_SHORTEST_LIFE_S = 10


class Streams:
    """A project's streams."""

    def __init__(self, store: Catalog, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    def list(self, credential: Credential) -> Sequence[StreamRow]:
        """All of the project, by name."""
        must_manage(credential)
        rows = self._directory.now.streams.values()
        mine = [row for row in rows if row.project == credential.project]
        return sorted(mine, key=lambda row: row.name)

    async def change(self, credential: Credential, name: str, given: StreamFields) -> StreamRow:
        """Change what is given. The pool is the operator's to choose: relays belong to the server.
        What changes nothing is not written. Raises Invalid, NotFound, Forbidden."""
        must_manage(credential)
        for row in await self._store.streams():
            if (row.project, row.name) == (credential.project, name):
                break
        else:
            raise NotFound("Stream not found")
        if given.pool is not UNSET and given.pool != row.pool:
            must_operate(credential)  # before a refusal tells which pools there are
        changed = changed_stream(row, given, await self._store.pools())
        if changed != row:
            await self._store.put(changed, actor=credential.actor, action="stream.change")
            await self._directory.refresh()
        return changed


class Projects:
    """All projects, for the operator."""

    def __init__(self, store: Catalog, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    def list(self, credential: Credential) -> Sequence[ProjectRow]:
        """All projects, oldest first."""
        must_operate(credential)
        return sorted(self._directory.now.projects.values(), key=lambda row: row.id)

    async def change(self, credential: Credential, id_: int, given: ProjectFields) -> ProjectRow:
        """Change what is given. What changes nothing is not written. Raises Invalid, NotFound."""
        must_operate(credential)
        for row in await self._store.projects():
            if row.id == id_:
                changed = changed_project(row, given)
                if changed != row:
                    await self._store.put(changed, actor=credential.actor, action="project.change")
                    await self._directory.refresh()
                return changed
        raise NotFound("Project not found")


def changed_stream(row: StreamRow, given: StreamFields, pools: Sequence[PoolRow]) -> StreamRow:
    """The row with what is given changed. Raises Invalid naming the field; Conflict."""
    asked = said(given)
    new: dict[str, Any] = {}
    if "weight" in asked:
        new["weight"] = _weight(asked["weight"])
    if "pool" in asked:
        pool = asked["pool"]
        implicit = pool == DEFAULT_POOL and not any(each.name == pool for each in pools)
        new["pool"] = pool if pool is None or implicit else find_pool(pools, pool).name
    for field, column, low, high in (
        ("retry_first", "retry_first_ms", _SHORTEST_RETRY_S, _DAY_S),
        ("retry_cap", "retry_cap_ms", _SHORTEST_RETRY_S, 7 * _DAY_S),
        ("lifetime", "lifetime_ms", _SHORTEST_LIFE_S, _LONGEST_LIFE_S),
    ):
        if field in asked:
            new[column] = count(asked[field], field, low=low, high=high) * 1000
    if "durability" in asked:
        new["durability"] = _demand(asked["durability"])
    if "in_doubt" in asked:
        new["in_doubt"] = InDoubtPolicy(asked["in_doubt"])
    changed = msgspec.structs.replace(row, **new)
    if changed.retry_cap_ms < changed.retry_first_ms:
        raise Invalid(
            "Invalid `retry_cap` field. It is not less than `retry_first`.", field="retry_cap"
        )
    return changed


def changed_project(row: ProjectRow, given: ProjectFields) -> ProjectRow:
    """The row with what is given changed. Raises Invalid naming the field."""
    asked = said(given)
    new: dict[str, Any] = {}
    if "weight" in asked:
        new["weight"] = _weight(asked["weight"])
    if "durability" in asked:
        new["durability"] = _demand(asked["durability"])
    return msgspec.structs.replace(row, **new)


def _demand(given: str | None) -> Assurance | None:
    return None if given is None else Assurance(given)


def _weight(given: int | None) -> int:
    return 1 if given is None else count(given, "weight", low=1, high=_MOST_WEIGHT)
