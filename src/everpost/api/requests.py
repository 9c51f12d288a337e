"""One request, as far as handlers need it: headers, query, body with a limit."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

from everpost import ids
from everpost.api.admission import WORDS, Admission, Reason
from everpost.api.answers import ADMITTED
from everpost.api.asgi import Receive, Scope
from everpost.api.errors import Malformed, TooLarge
from everpost.ids import Id
from everpost.model.credential import Credential
from everpost.model.errors import Invalid, NotFound, Unavailable

__all__ = ["Disconnected", "Page", "Request", "refuse"]

_Cursor = TypeVar("_Cursor", Id, int)

_NONE: dict[str, Any] = {}
_ONCE = frozenset((b"authorization", b"idempotency-key", b"content-type", b"content-encoding"))


class Disconnected(Exception):
    """The client went away before its request was complete; there is nobody to answer."""


class Page(Generic[_Cursor]):
    """Where a list starts and how long it may be (COMPAT §5.2)."""

    __slots__ = ("after", "before", "limit")

    def __init__(self, *, limit: int, after: _Cursor | None, before: _Cursor | None) -> None:
        self.limit = limit
        self.after: _Cursor | None = after
        self.before: _Cursor | None = before


class Request:
    """A request on its way to a handler. `credential` is set where the route asks for one."""

    __slots__ = (
        "_receive", "_scope", "counted", "credential", "entered", "extensions", "headers",
        "length", "params", "taken",
    )  # fmt: skip

    credential: Credential

    def __init__(self, scope: Scope, receive: Receive, params: Sequence[str]) -> None:
        pairs: list[tuple[bytes, bytes]] = scope["headers"]
        self.headers = dict(pairs)
        if len(self.headers) != len(pairs):
            _refuse_twins(pairs)
        self.params = params
        self.extensions: dict[str, Any] = scope.get("extensions", _NONE)
        self.taken = 0
        """Bytes that this request holds of the budget."""
        self.length = 0
        """Bytes of the body that was read."""
        self.counted = False
        """Whether it is one of the listener's requests in hand."""
        self.entered: float | None = None
        """When this email went in hand (`Admission.enter`)."""
        self._scope = scope
        self._receive = receive

    @property
    def admitted(self) -> float | None:
        """What our listener says of this email: see `answers.ADMITTED`."""
        given: float | None = self.extensions.get(ADMITTED)
        return given

    def id_of(self, absent: str) -> Id:
        """The path's id. What is no id at all is answered like an id that nobody has (S40):
        NotFound with the words `absent`."""
        found = ids.parse(self.params[0])
        if found is None:
            raise NotFound(absent)
        return found

    def header(self, name: bytes) -> str | None:
        """A header's value as text, or None."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def token(self) -> str | None:
        """The bearer token, or None when there is none (RFC 6750 §2.1)."""
        value = self.headers.get(b"authorization")
        if value is None:
            return None
        scheme, _, token = value.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        return token.decode("latin-1") or None

    def query(self) -> dict[str, str]:
        """The query's fields. Raises Invalid for a field given twice."""
        raw: bytes = self._scope["query_string"]
        if not raw:
            return {}
        try:
            pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=32)
        except ValueError as error:
            raise Invalid("The query string is not valid.") from error
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise Invalid("The query string gives a field twice.")
        return fields

    def page(self) -> Page[Id]:
        """`limit`, `after` and `before`, which are ids. Raises Invalid."""
        return self._page(_id_cursor)

    def positions(self) -> Page[int]:
        """The same for a list whose cursors are positions."""
        return self._page(_position_cursor)

    def _page(self, read: Callable[[str, str], _Cursor]) -> Page[_Cursor]:
        query = self.query()
        text = query.get("limit", "20")
        if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= 100):
            raise Invalid("Invalid `limit` field. It must be from 1 to 100.", field="limit")
        if "after" in query and "before" in query:
            raise Invalid("Give `after` or `before`, not both.", field="after")
        given = {name: read(name, query[name]) for name in ("after", "before") if name in query}
        return Page(limit=int(text), after=given.get("after"), before=given.get("before"))

    async def read(self, limit: int, admission: Admission) -> bytes:
        """The whole body. Raises TooLarge past `limit` bytes, Invalid for an encoded body,
        Unavailable when the budget has no room; what was taken of it is in `taken`.

        A declared length is taken at once: what begins to arrive must be able to end.
        """
        encoding = self.headers.get(b"content-encoding")
        if encoding is not None and encoding.lower() != b"identity":
            raise Invalid(
                "Send the request body without a content encoding.", name="unsupported_media_type"
            )
        length = self.headers.get(b"content-length")
        if length is not None:
            if int(length) > limit:
                raise _too_large(limit)
            self._take(int(length), admission)
        counted = ADMITTED in self.extensions
        message = await self._receive()
        collected: bytes | bytearray = b""
        while message["type"] == "http.request":
            piece: bytes = message.get("body", b"")
            self.length += len(piece)
            if counted:  # our listener held these bytes until now
                admission.release(len(piece))
            if self.length > self.taken:
                self._take(self.length - self.taken, admission)
            if self.length > limit:
                raise _too_large(limit)
            if not message.get("more_body"):
                return bytes(collected + piece) if collected else piece
            if not collected:
                collected = bytearray()
            collected += piece
            message = await self._receive()
        raise Disconnected

    def _take(self, count: int, admission: Admission) -> None:
        if not admission.has_room(count):
            raise refuse(admission, Reason.BYTES)
        admission.hold(count)
        self.taken += count


def refuse(admission: Admission, reason: Reason) -> Unavailable:
    """The refusal to raise."""
    return Unavailable(WORDS[reason], retry_after=admission.refuse(reason))


def _id_cursor(name: str, text: str) -> Id:
    found = ids.parse(text)
    if found is None:
        raise Invalid(f"Invalid `{name}` field. It must be an id.", field=name)
    return found


def _position_cursor(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Invalid(f"Invalid `{name}` field. It must be a position.", field=name)
    return int(text)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than {limit} bytes.")


def _refuse_twins(pairs: Sequence[tuple[bytes, bytes]]) -> None:
    """Two values where one decides who asks or what is asked are an attempt at confusion."""
    seen = set()
    for name, _ in pairs:
        if name in _ONCE:
            if name in seen:
                raise Malformed(f"The header `{name.decode('latin-1')}` is given twice.")
            seen.add(name)
