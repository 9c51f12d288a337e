"""Short lists that are in memory: the page that a query asks for."""

from typing import Protocol, TypeVar

from everpost import ids
from everpost.api.requests import Request
from everpost.api.shapes import ListAnswer

__all__ = ["page_by_id", "page_by_position"]


class _WithId(Protocol):
    id: str


class _WithPosition(Protocol):
    position: int


_I = TypeVar("_I", bound=_WithId)
_P = TypeVar("_P", bound=_WithPosition)


def page_by_id(items: list[_I], request: Request) -> ListAnswer[_I]:
    """The part that the query asks for; all of it when it does not ask. Items are in the order of
    their ids, so a cursor means a place even when its row has gone."""
    if not request.query():
        return ListAnswer(items)
    page = request.page()
    if page.before is not None:
        first = ids.text(page.before)
        items = [item for item in items if item.id < first]
        return ListAnswer(items[-page.limit :], len(items) > page.limit)
    if page.after is not None:
        last = ids.text(page.after)
        items = [item for item in items if item.id > last]
    return ListAnswer(items[: page.limit], len(items) > page.limit)


def page_by_position(items: list[_P], request: Request) -> ListAnswer[_P]:
    """The same for items in the order of their positions, which are its cursors."""
    if not request.query():
        return ListAnswer(items)
    page = request.positions()
    if page.before is not None:
        items = [item for item in items if item.position < page.before]
        return ListAnswer(items[-page.limit :], len(items) > page.limit)
    if page.after is not None:
        items = [item for item in items if item.position > page.after]
    return ListAnswer(items[: page.limit], len(items) > page.limit)
