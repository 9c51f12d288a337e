"""What a credential may do: one table, and what is not in it is refused."""

from collections.abc import Mapping
from enum import StrEnum

from everpost.model.credential import FULL_ACCESS, SENDING_ACCESS, Credential
from everpost.model.errors import Forbidden

__all__ = ["RIGHTS", "Right", "allows", "require"]


class Right(StrEnum):
    """Kinds of things to do, as doors ask for them.

    send: hand in messages. read: see messages and their fate. control: cancel, reschedule, hold.
    manage: keys, domains, relays and other settings, secrets never included.
    """

    SEND = "send"
    READ = "read"
    CONTROL = "control"
    MANAGE = "manage"


RIGHTS: Mapping[str, frozenset[Right]] = {
    FULL_ACCESS: frozenset(Right),
    SENDING_ACCESS: frozenset({Right.SEND}),
}
"""By permission."""

_NONE: frozenset[Right] = frozenset()


def allows(credential: Credential, right: Right) -> bool:
    """Whether the table grants it; a permission that it does not know grants nothing."""
    return right in RIGHTS.get(credential.permission, _NONE)


def require(credential: Credential, right: Right) -> None:
    """Raises Forbidden `restricted_api_key` (COMPAT §5.3) where the table does not grant it."""
    if not allows(credential, right):
        raise Forbidden("This API key is restricted to only send emails", name="restricted_api_key")
