"""Mail that the sandbox caught, as it would have travelled."""

from everpost.delivery import CannotRender
from everpost.dispatch.rendering import ContentDamaged, Renderer
from everpost.ids import Id
from everpost.model.credential import Credential
from everpost.model.errors import Conflict, NotFound
from everpost.store.interface import Reading

__all__ = ["Sandbox"]

_DAMAGED = "The stored email is damaged and is not shown."


class Sandbox:
    """Composes again what was captured: the bytes are a function of the stored content."""

    def __init__(self, store: Reading, renderer: Renderer) -> None:
        self._store = store
        self._renderer = renderer

    async def raw(self, credential: Credential, message: Id) -> bytes:
        """The composed message. Raises NotFound, or Conflict when it cannot be composed."""
        row = await self._store.message(credential.project, message)
        if row is None or not row.sandbox:
            raise NotFound("There is no such email in the sandbox.")
        if row.sealed is None:
            raise Conflict(_DAMAGED)
        try:
            return await self._renderer.captured(row, row.sealed)
        except CannotRender as error:
            raise Conflict(f"The email cannot be composed: {error.outcome}") from error
        except ContentDamaged as error:
            raise Conflict(_DAMAGED) from error
