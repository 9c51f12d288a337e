"""Who is asking: the answer of `access`, the argument of every room that acts for a caller."""

import msgspec

from everpost.ids import Id

__all__ = ["FULL_ACCESS", "SENDING_ACCESS", "Credential"]

FULL_ACCESS = "full_access"
SENDING_ACCESS = "sending_access"


class Credential(msgspec.Struct, frozen=True, gc=False):
    """A caller that was recognised. `key` is None for the local operator (admin socket).
    `domain` restricts sending to one domain. `actor` names the caller in the audit table."""

    project: int
    permission: str
    actor: str
    key: Id | None = None
    domain: Id | None = None
    sandbox: bool = False
    operator: bool = False
