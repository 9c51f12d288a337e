"""What the acceptance of a message must mean at least: by its request, its stream, its project."""

from everpost.model.errors import Invalid, Unavailable
from everpost.model.message import Assurance
from everpost.store.interface import ProjectRow, StreamRow

__all__ = ["least"]

_DEMANDS = (Assurance.COMMITTED, Assurance.REPLICATED)
_ANY = Assurance.RELAXED
_CHANGED_S = 60
"""To come back after to a server that never gives what a stream demands: an operator's matter."""


def least(
    asked: str | None, stream: StreamRow, project: ProjectRow | None, *, gives: Assurance
) -> Assurance | None:
    """The strongest demand there is, or None; `gives` is the most that this server ever means.

    Pure. Raises Invalid for a request that asks for more than that, Unavailable where its stream or
    its project does.
    """
    strongest = _asked(asked)
    if strongest is not None and not gives.meets(strongest):
        raise Invalid(
            f"Invalid `durability` field. This server gives `{gives}` at best and cannot promise "
            f"`{strongest}`.",
            field="durability",
        )
    for demand in (stream.durability, None if project is None else project.durability):
        if demand is None:
            continue
        if not gives.meets(demand):
            raise Unavailable(
                f"Its stream or project demands `{demand}`, and this server gives `{gives}` at "
                "best. Nothing was accepted.",
                retry_after=_CHANGED_S,
            )
        if strongest is None or demand.meets(strongest):
            strongest = demand
    return strongest


def _asked(text: str | None) -> Assurance | None:
    """`relaxed` is no demand: whatever the server does."""
    if text is None or text == _ANY:
        return None
    if text not in _DEMANDS:
        raise Invalid(
            "Invalid `durability` field. It is `replicated`, `committed` or `relaxed`.",
            field="durability",
        )
    return Assurance(text)
