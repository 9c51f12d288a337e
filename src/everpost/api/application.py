"""One ASGI application: find the route, know the caller, read the body, call, answer.

Written against ASGI itself: on the hot path each layer of a framework costs more than the work.
"""

import asyncio
from codecs import BOM_UTF8
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec

from everpost import ids, telemetry
from everpost.access import require
from everpost.api import errors
from everpost.api.admission import Reason
from everpost.api.answers import ADMITTED, Answer, encode, problem, send
from everpost.api.asgi import Receive, Scope, Send
from everpost.api.requests import Disconnected, Request, refuse
from everpost.api.routes import Route
from everpost.api.services import Services
from everpost.model.credential import Credential
from everpost.model.errors import NotFound
from everpost.model.message import Durability

__all__ = ["Application", "Router"]

_REQUESTS = telemetry.counter(
    "everpost_http_requests_total", "Answered requests", ("route", "method", "status")
)
_SECONDS = telemetry.histogram(
    "everpost_http_request_seconds", "From a request's head to its answer", ("route",)
)

_AUTH = telemetry.histogram("everpost_http_auth_seconds", "Recognising a request's API key")

_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Router:
    """Paths as they were sent. Percent signs, empty segments and dots mean nothing before a
    segment has matched, so no spelling reaches what another spelling is denied."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._static: dict[bytes, dict[str, Route]] = {}
        self._patterns: dict[int, list[tuple[tuple[bytes, ...], dict[str, Route]]]] = {}
        for route in routes:
            self._methods(route.path.encode())[route.method] = route

    def _methods(self, path: bytes) -> dict[str, Route]:
        if b"{" not in path:
            return self._static.setdefault(path, {})
        segments = tuple(path.split(b"/"))
        rows = self._patterns.setdefault(len(segments), [])
        for known, methods in rows:
            if known == segments:
                return methods
        rows.append((segments, {}))
        return rows[-1][1]

    def find(self, method: str, path: bytes) -> tuple[Route, Sequence[str]]:
        """The route and its path parameters. Raises NotFound, MethodNotAllowed."""
        methods: Mapping[str, Route] | None = self._static.get(path)
        parameters: Sequence[str] = ()
        if methods is None:
            methods, parameters = self._match(path)
        route = methods.get(method) or (methods.get("GET") if method == "HEAD" else None)
        if route is None:
            raise errors.MethodNotAllowed(", ".join(sorted(methods)))
        return route, parameters

    def _match(self, path: bytes) -> tuple[Mapping[str, Route], Sequence[str]]:
        given = path.split(b"/")
        for segments, methods in self._patterns.get(len(given), ()):
            pairs = tuple(zip(segments, given, strict=True))
            if all(want == got or (want[:1] == b"{" and got) for want, got in pairs):
                return methods, [
                    unquote(got.decode("ascii")) for want, got in pairs if want[:1] == b"{"
                ]
        raise NotFound("There is nothing at this path.")


class Application:
    """An ASGI application over a route table.

    `credential` given: every caller is that one and needs no key (the operator's unix socket).
    """

    def __init__(
        self,
        services: Services,
        routes: Iterable[Route],
        *,
        credential: Credential | None = None,
        pages: Mapping[bytes, Answer] | None = None,
    ) -> None:
        self._services = services
        self._router = Router(routes)
        self._credential = credential
        self._pages = pages or {}
        self._admission = services.admission
        self._in_hand = 0
        self._relaxed = services.durability is Durability.RELAXED

    async def __call__(self, scope: Scope, receive: Receive, sender: Send) -> None:
        """Answer one request. Never raises but for cancellation."""
        started = self._services.clock.monotonic()
        label = "none"
        method: str = scope["method"]
        request: Request | None = None
        answer: Answer | None = None
        try:
            path: bytes = scope["raw_path"]
            if path.endswith(b"/") and len(path) > 1:
                path = path[:-1]
            page = self._pages.get(path)
            if page is not None:
                label, answer = path.decode("ascii"), page
                if method not in {"GET", "HEAD"}:
                    raise errors.MethodNotAllowed("GET")
            else:
                route, parameters = self._router.find(method, path)
                label = route.path
                request = Request(scope, receive, parameters)
                if route.mail and request.admitted is None:
                    self._ask(request)
                answer = self._marked(await self._handle(route, request), route)
        except Disconnected:
            return
        except asyncio.CancelledError:  # the shutdown's deadline
            await send(_gone(), scope, sender)
            raise
        except Exception as error:
            answer = errors.answer(error, request_id=ids.text(self._services.ids()))
        finally:
            self._let_go(request, scope.get("extensions"), answer)
        await send(self._with_durability(answer), scope, sender)
        _REQUESTS.add(1, label, method, str(answer.status))
        _SECONDS.observe(self._services.clock.monotonic() - started, label)

    async def _handle(self, route: Route, request: Request) -> Any:
        services = self._services
        if route.right is not None:
            if not route.mail:
                self._count(request)
            if self._credential is not None:
                request.credential = self._credential
            else:
                began = services.clock.monotonic()
                request.credential = await services.access.recognise(request.token())
                _AUTH.observe(services.clock.monotonic() - began)
            require(request.credential, route.right)
        if route.body is None:
            return await route.handler(services, request)
        limits = services.limits
        most = limits.document_bytes if route.large else limits.settings_bytes
        body = await request.read(limits.body_bytes if route.mail else most, self._admission)
        if route.mail and not request.admitted:
            request.entered = self._admission.enter()
        if body.startswith(BOM_UTF8):  # some editors write one; RFC 8259 §8.1 lets us pass over it
            body = body[len(BOM_UTF8) :]
        if route.decoder is None:
            return await route.handler(services, request, body)
        try:
            decoded = route.decoder.decode(body)
        except _BROKEN as error:
            raise errors.from_msgspec(error) from None
        return await route.handler(services, request, decoded)

    def _ask(self, request: Request) -> None:
        """Raises Unavailable when no email is taken now."""
        length = request.headers.get(b"content-length")
        reason = self._admission.refusal(0 if length is None else int(length))
        if reason is not None:
            raise refuse(self._admission, reason)

    def _count(self, request: Request) -> None:
        """The same for requests that are no emails."""
        if self._in_hand >= self._services.limits.requests:
            raise refuse(self._admission, Reason.BUSY)
        self._in_hand += 1
        request.counted = True

    def _let_go(
        self, request: Request | None, extensions: dict[str, Any] | None, answer: Answer | None
    ) -> None:
        """Give back what the request held, once its answer is known."""
        entered: float | None = None
        if extensions is not None and ADMITTED in extensions:
            entered = extensions[ADMITTED]
            extensions[ADMITTED] = None  # a body that still arrives enters no more
        length = 0
        if request is not None:
            entered = request.entered or entered
            length = request.length
            if request.taken:
                self._admission.release(request.taken)
            if request.counted:
                self._in_hand -= 1
        if entered:
            accepted = length if answer is not None and answer.status == 200 else None
            self._admission.leave(entered, accepted=accepted)

    def _marked(self, result: Any, route: Route) -> Answer:
        """The result as an answer; success says so when it is less than committed."""
        if isinstance(result, Answer):
            return result
        body = result if isinstance(result, bytes) else encode(result)
        if self._relaxed and not route.shows_durability:
            body = body[:-1] + b',"durability":"relaxed"}'
        return Answer(200, body)

    def _with_durability(self, answer: Answer) -> Answer:
        if not self._relaxed:
            return answer
        headers = [*answer.headers, (b"everpost-durability", b"relaxed")]
        return msgspec.structs.replace(answer, headers=headers)


def _gone() -> Answer:
    return problem(
        503,
        "service_unavailable",
        "This server is shutting down and did not finish the request. Repeat it with its"
        " Idempotency-Key.",
        headers=[(b"retry-after", b"1")],
    )
