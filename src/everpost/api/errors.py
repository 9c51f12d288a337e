"""Refusals of the rooms below, and broken JSON, as answers (COMPAT §5.3). Mapped only here.

| raised | status |
|---|---|
| Invalid, Missing | 422, but for the names in `_BY_NAME` |
| Unauthorized | 401 `missing_api_key`, else 403 |
| Forbidden | 401 `restricted_api_key`, else 403 |
| NotFound, MethodNotAllowed, Conflict, TooLarge | 404, 405, 409, 413 |
| Malformed | 400 |
| Unavailable, StoreUnavailable, StoreCorrupt | 503 with Retry-After |
| anything else | 500, with a request id that the log has too |
"""

import re

import msgspec

from everpost import telemetry
from everpost.api.answers import Answer, problem
from everpost.model import errors
from everpost.store.interface import StoreCorrupt, StoreUnavailable

__all__ = ["Malformed", "MethodNotAllowed", "TooLarge", "answer", "from_msgspec"]

_RESTORED_S = 60
"""To come back to a damaged store after; an operator has to restore it first."""


class MethodNotAllowed(errors.Refusal):
    """The path is known, the method is not; `allowed` is the Allow header's value."""

    default_name = "method_not_allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"This endpoint answers {allowed} only.")
        self.allowed = allowed


class TooLarge(errors.Refusal):
    default_name = "validation_error"


class Malformed(errors.Refusal):
    """Not JSON at all, or a request that contradicts itself."""

    default_name = "validation_error"


_BY_NAME = {
    "invalid_idempotency_key": 400,
    "message_too_large": 413,
    "missing_api_key": 401,
    "restricted_api_key": 401,
    "unsupported_media_type": 415,
}
_BY_TYPE: tuple[tuple[type[errors.Refusal], int], ...] = (
    (Malformed, 400),
    (TooLarge, 413),
    (MethodNotAllowed, 405),
    (errors.Invalid, 422),
    (errors.Missing, 422),
    (errors.Unauthorized, 403),
    (errors.Forbidden, 403),
    (errors.NotFound, 404),
    (errors.Conflict, 409),
    (errors.Unavailable, 503),
)


def answer(error: Exception, *, request_id: str) -> Answer:
    """The answer to a request whose handling raised `error`."""
    if isinstance(error, StoreUnavailable):
        telemetry.event("http.store_unavailable", error=str(error), request_id=request_id)
        error = errors.Unavailable("The service cannot store mail now. Nothing was accepted.")
    elif isinstance(error, StoreCorrupt):  # SQLite says so of a page that cannot be read (EIO), too
        telemetry.event("http.store_corrupt", error=str(error), request_id=request_id)
        error = errors.Unavailable(
            "This cannot be read or written: the store is damaged.",
            name="store_corrupt",
            retry_after=_RESTORED_S,
        )
    if isinstance(error, errors.Refusal):
        return _refusal(error)
    telemetry.event("http.error", error=repr(error), where=_where(error), request_id=request_id)
    return problem(
        500,
        "application_error",
        f"An unexpected error occurred. Its request id is {request_id}.",
        headers=[(b"x-request-id", request_id.encode())],
    )


def _refusal(refusal: errors.Refusal) -> Answer:
    status = _BY_NAME.get(refusal.name) or next(
        (status for kind, status in _BY_TYPE if isinstance(refusal, kind)), 500
    )
    headers: list[tuple[bytes, bytes]] = []
    if isinstance(refusal, errors.Unavailable):
        headers.append((b"retry-after", b"%d" % max(1, refusal.retry_after)))
    elif isinstance(refusal, MethodNotAllowed):
        headers.append((b"allow", refusal.allowed.encode()))  # RFC 9110 §15.5.6
    elif status == 401:
        headers.append((b"www-authenticate", b"Bearer"))  # RFC 9110 §11.6.1
    return problem(status, refusal.name, refusal.message, headers=headers)


def _where(error: BaseException) -> str:
    """File and line that raised; the log gets this in place of a stack trace."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    if step is None:
        return "?"
    return f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}"


_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$(?P<path>.*)`)?$", re.DOTALL)
_ABSENT = re.compile(r"Object missing required field `(.+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.+)`")


def from_msgspec(error: Exception) -> errors.Refusal:
    """What msgspec's decoder raised, in words for the caller; names the field in backticks."""
    if not isinstance(error, msgspec.ValidationError):
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        return Malformed(f"The request body is not valid JSON: {reason}.")
    match = _PLACE.match(str(error))
    what, path = (match["what"], match["path"]) if match else (str(error), "")
    place = (path or "").replace("[...]", "").lstrip(".")
    index, place = _item(place)
    if absent := _ABSENT.search(what):
        field = f"{place}.{absent[1]}".lstrip(".")
        return errors.Missing(f"{index}Missing `{field}` field.", field=field)
    if unknown := _UNKNOWN.search(what):
        field = f"{place}.{unknown[1]}".lstrip(".")
        return errors.Invalid(f"{index}Unknown field `{field}`.", field=field)
    if not place:
        return errors.Invalid(f"{index}The request body is not valid. {what}.")
    return errors.Invalid(f"{index}Invalid `{place}` field. {what}.", field=place)


def _item(place: str) -> tuple[str, str]:
    """Split `[37].to` of a batch into `Item 37: ` and `to`."""
    match = re.match(r"\[(\d+)\]\.?(.*)", place, re.DOTALL)
    return (f"Item {match[1]}: ", match[2]) if match else ("", place)
