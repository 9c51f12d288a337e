"""The room's exceptions.

ComposeError
├── CannotCompose   this content cannot be written as a message; trying again will not help
└── UnreadableKey   a DKIM key that cannot be used; an operator must look
"""

__all__ = ["CannotCompose", "ComposeError", "UnreadableKey"]


class ComposeError(Exception):
    """Composing or signing is not possible."""


class CannotCompose(ComposeError):
    """`reason` is a sentence for people; `field` is the field of `Content` that is at fault."""

    def __init__(self, reason: str, *, field: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


class UnreadableKey(ComposeError):
    """The stored key is damaged, of an unknown kind, or too short or too long."""
