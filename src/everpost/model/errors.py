"""Refusals: what a caller asked for and may not have. One tree; doors map it to their dialect.

Refusal
├── Invalid            a value is wrong; `field` names it
├── Missing            a required field is absent
├── Unauthorized       no credential, or not a known one
├── Forbidden          known, but not allowed
├── NotFound
├── Conflict           the present state does not allow it
└── Unavailable        try again later (`retry_after` seconds)
"""

__all__ = [
    "Conflict",
    "Forbidden",
    "Invalid",
    "Missing",
    "NotFound",
    "Refusal",
    "Unauthorized",
    "Unavailable",
]


class Refusal(Exception):
    """Something was refused. `name` is stable and machine-readable, `field` the offending field."""

    default_name = "application_error"

    def __init__(self, message: str, *, field: str | None = None, name: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.name = name or self.default_name


class Invalid(Refusal):
    default_name = "validation_error"


class Missing(Refusal):
    default_name = "missing_required_field"


class Unauthorized(Refusal):
    default_name = "invalid_api_key"


class Forbidden(Refusal):
    default_name = "validation_error"


class NotFound(Refusal):
    default_name = "not_found"


class Conflict(Refusal):
    default_name = "conflict"


class Unavailable(Refusal):
    default_name = "service_unavailable"

    def __init__(
        self,
        message: str,
        *,
        retry_after: int = 1,
        field: str | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(message, field=field, name=name)
        self.retry_after = retry_after
