"""How a mutant takes the place of what it breaks."""

from typing import Any

__all__ = ["mutate"]


def mutate(owner: Any, name: str, mutant: Any) -> Any:
    """Put `mutant` in the place of `owner.name`; the original. Fails when there is none: a mutant
    that breaks nothing would be caught by nobody."""
    if not hasattr(owner, name):
        raise AssertionError(f"mutant: {owner} has no {name} any more")
    original = getattr(owner, name)
    setattr(owner, name, mutant)
    return original
