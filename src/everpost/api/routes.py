"""The route table. The router and the OpenAPI document are built from it and from the handlers'
annotations, so they cannot drift apart.

A handler's third parameter is its body: a struct (decoded by the application), or
`Annotated[bytes, Shape]` where it decodes for itself. Its result is a struct (encoded by the
application), `Annotated[bytes, Shape]` for ready JSON, or `Annotated[Answer, Shape]`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec

from everpost.access import Right
from everpost.api import messages, nodes, operations, pools, relays, sending, settings, streams

__all__ = ["ADMIN", "NATIVE", "Parameter", "Route"]

Handler = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query field or header, for the document."""

    name: str
    place: str
    description: str
    schema: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `right` None: no key is asked for. `mail`: its body may be a whole message."""

    method: str
    path: str
    handler: Handler
    tag: str
    summary: str
    right: Right | None = None
    parameters: tuple[Parameter, ...] = ()
    mail: bool = False
    large: bool = False
    """Its body may be a document of all settings."""
    absent: bool = False
    """Answers 404 for ids that are not the caller's."""
    conflict: bool = False
    """Answers 409 though it takes no body."""
    hidden: bool = False
    """Not in the document."""
    body: Any = field(init=False)
    """The body's type for the document, or None."""
    answer: Any = field(init=False)
    decoder: msgspec.json.Decoder[Any] | None = field(init=False)
    """None: the handler takes bytes, or nothing."""

    def __post_init__(self) -> None:
        hints = get_type_hints(self.handler, include_extras=True)
        answer = hints.pop("return")
        body = hints.get("body", NoneType)
        raw, shown = _split(body)
        object.__setattr__(self, "body", None if shown is NoneType else shown)
        object.__setattr__(self, "answer", _split(answer)[1])
        decodes = raw is not bytes and raw is not NoneType
        object.__setattr__(self, "decoder", msgspec.json.Decoder(raw) if decodes else None)

    @property
    def shows_durability(self) -> bool:
        """Whether the answer has a field of that name already."""
        return "durability" in getattr(self.answer, "__struct_fields__", ())

    @property
    def name(self) -> str:
        return getattr(self.handler, "__name__", "handler")

    @property
    def description(self) -> str:
        return " ".join((self.handler.__doc__ or "").split())


def _split(annotation: Any) -> tuple[Any, Any]:
    """(what the code handles, what the document shows)."""
    if get_origin(annotation) is Annotated:
        handled, shown = get_args(annotation)
        return handled, shown
    return annotation, annotation


_LIMIT = Parameter(
    "limit",
    "query",
    "How many, from 1 to 100.",
    {"type": "integer", "minimum": 1, "maximum": 100, "default": 20},
)
_ID = {"type": "string", "format": "uuid"}
_PAGE = (
    _LIMIT,
    Parameter("after", "query", "The id after which the list goes on.", _ID),
    Parameter("before", "query", "The id before which the list ends; not with `after`.", _ID),
)
_POSITION = {"type": "integer", "minimum": 0}
_POSITIONS = (
    _LIMIT,
    Parameter("after", "query", "The position after which the list goes on.", _POSITION),
    Parameter(
        "before", "query", "The position before which the list ends; not with `after`.", _POSITION
    ),
)
_KEY = Parameter(
    "Idempotency-Key",
    "header",
    "Repeat a request with the same key and body and get the first answer, without a second email."
    " Kept for 24 hours unless this server is set otherwise (`intake.idempotency_hours`).",
    {"type": "string", "minLength": 1, "maxLength": 256},
)
_VALIDATION = Parameter(
    "x-batch-validation",
    "header",
    "`permissive` accepts the good emails of a batch and lists the others.",
    {"type": "string", "enum": ["strict", "permissive"], "default": "strict"},
)

_EMAILS, _SANDBOX, _DOMAINS, _KEYS, _RELAYS, _POOLS, _STREAMS, _SYSTEM = (
    "Emails", "Sandbox", "Domains", "API keys", "Relays", "Pools", "Streams", "System",
)  # fmt: skip
_READ, _MANAGE = Right.READ, Right.MANAGE

NATIVE: tuple[Route, ...] = (
    Route(
        "POST", "/emails", sending.send, _EMAILS, "Send an email",
        right=Right.SEND, parameters=(_KEY,), mail=True,
    ),
    Route(
        "POST", "/emails/batch", sending.send_batch, _EMAILS, "Send up to 100 emails",
        right=Right.SEND, parameters=(_KEY, _VALIDATION), mail=True,
    ),
    Route(
        "GET", "/emails", messages.list_emails, _EMAILS, "List emails",
        right=_READ, parameters=_PAGE,
    ),
    Route(
        "GET", "/emails/{id}", messages.get_email, _EMAILS, "Get an email",
        right=_READ, absent=True,
    ),
    Route(
        "PATCH", "/emails/{id}", messages.reschedule, _EMAILS, "Move a scheduled email",
        right=Right.CONTROL, absent=True,
    ),
    Route(
        "POST", "/emails/{id}/cancel", messages.cancel, _EMAILS, "Cancel an email",
        right=Right.CONTROL, absent=True,
    ),
    Route(
        "POST", "/emails/{id}/hold", messages.hold, _EMAILS, "Hold an email",
        right=Right.CONTROL, absent=True,
    ),
    Route(
        "POST", "/emails/{id}/release", messages.release, _EMAILS, "Let a held email go",
        right=Right.CONTROL, absent=True,
    ),
    Route(
        "GET", "/emails/{id}/recipients", messages.recipients, _EMAILS, "See every attempt",
        right=_READ, absent=True,
    ),
    Route(
        "GET", "/emails/{id}/events", messages.events, _EMAILS, "See the timeline",
        right=_READ, absent=True,
    ),
    Route(
        "GET", "/sandbox", messages.list_sandbox_emails, _SANDBOX, "List caught emails",
        right=_READ, parameters=_PAGE,
    ),
    Route(
        "GET", "/sandbox/{id}", messages.get_sandbox_email, _SANDBOX, "Get a caught email",
        right=_READ, absent=True,
    ),
    Route("POST", "/domains", settings.add_domain, _DOMAINS, "Add a domain", right=_MANAGE),
    Route(
        "GET", "/domains", settings.list_domains, _DOMAINS, "List domains",
        right=_MANAGE, parameters=_PAGE,
    ),
    Route(
        "GET", "/domains/{id}", settings.get_domain, _DOMAINS, "Get a domain",
        right=_MANAGE, absent=True,
    ),
    Route(
        "POST", "/domains/{id}/verify", settings.verify_domain, _DOMAINS, "Verify a domain",
        right=_MANAGE, absent=True, conflict=True,
    ),
    Route(
        "DELETE", "/domains/{id}", settings.remove_domain, _DOMAINS, "Remove a domain",
        right=_MANAGE, absent=True,
    ),
    Route("POST", "/api-keys", settings.create_api_key, _KEYS, "Make an API key", right=_MANAGE),
    Route(
        "GET", "/api-keys", settings.list_api_keys, _KEYS, "List API keys",
        right=_MANAGE, parameters=_PAGE,
    ),
    Route(
        "DELETE", "/api-keys/{id}", settings.revoke_api_key, _KEYS, "Revoke an API key",
        right=_MANAGE, absent=True,
    ),
    Route("POST", "/relays", relays.add_relay, _RELAYS, "Add a relay", right=_MANAGE),
    Route(
        "GET", "/relays", relays.list_relays, _RELAYS, "List relays",
        right=_MANAGE, parameters=_PAGE,
    ),
    Route(
        "GET", "/relays/status", relays.relays_status, _RELAYS, "See how relays do",
        right=_MANAGE,
    ),
    Route(
        "GET", "/relays/{id}", relays.get_relay, _RELAYS, "Get a relay",
        right=_MANAGE, absent=True,
    ),
    Route(
        "PATCH", "/relays/{id}", relays.patch_relay, _RELAYS, "Change a relay",
        right=_MANAGE, absent=True,
    ),
    Route(
        "DELETE", "/relays/{id}", relays.remove_relay, _RELAYS, "Remove a relay",
        right=_MANAGE, absent=True, conflict=True,
    ),
    Route(
        "POST", "/relays/{id}/test", relays.test_relay, _RELAYS, "Test a relay",
        right=_MANAGE, absent=True,
    ),
    Route("POST", "/pools", pools.add_pool, _POOLS, "Make a pool", right=_MANAGE),
    Route(
        "GET", "/pools", pools.list_pools, _POOLS, "List pools", right=_MANAGE, parameters=_PAGE,
    ),
    Route(
        "GET", "/pools/{id}", pools.get_pool, _POOLS, "Get a pool", right=_MANAGE, absent=True,
    ),
    Route(
        "PATCH", "/pools/{id}", pools.patch_pool, _POOLS, "Change a pool",
        right=_MANAGE, absent=True,
    ),
    Route(
        "DELETE", "/pools/{id}", pools.remove_pool, _POOLS, "Remove a pool",
        right=_MANAGE, absent=True, conflict=True,
    ),
    Route("POST", "/routes", pools.add_route, _POOLS, "Make a route", right=_MANAGE),
    Route(
        "GET", "/routes", pools.list_routes, _POOLS, "List routes",
        right=_MANAGE, parameters=_POSITIONS,
    ),
    Route(
        "POST", "/routes/explain", pools.explain_route, _POOLS, "See where a mail would go",
        right=_MANAGE,
    ),
    Route(
        "GET", "/routes/{id}", pools.get_route, _POOLS, "Get a route", right=_MANAGE, absent=True,
    ),
    Route(
        "PATCH", "/routes/{id}", pools.patch_route, _POOLS, "Change a route",
        right=_MANAGE, absent=True,
    ),
    Route(
        "DELETE", "/routes/{id}", pools.remove_route, _POOLS, "Remove a route",
        right=_MANAGE, absent=True,
    ),
    Route("GET", "/streams", streams.list_streams, _STREAMS, "List streams", right=_MANAGE),
    Route(
        "PATCH", "/streams/{name}", streams.patch_stream, _STREAMS, "Change a stream",
        right=_MANAGE, absent=True,
    ),
    Route("GET", "/projects", streams.list_projects, _STREAMS, "List projects", right=_MANAGE),
    Route(
        "PATCH", "/projects/{number}", streams.patch_project, _STREAMS, "Change a project",
        right=_MANAGE, absent=True,
    ),
    Route(
        "POST", "/apply", streams.apply, _SYSTEM, "Apply a document",
        right=_MANAGE, large=True,
    ),
    Route("GET", "/status", operations.status, _SYSTEM, "See the queue", right=_MANAGE),
    Route("GET", "/nodes", nodes.list_nodes, _SYSTEM, "List nodes", right=_MANAGE),
    Route(
        "DELETE", "/nodes/{name}", nodes.forget_node, _SYSTEM, "Forget a node",
        right=_MANAGE, absent=True,
    ),
    Route(
        "GET", "/audit", operations.audit, _SYSTEM, "See who changed what",
        right=_MANAGE, parameters=_POSITIONS,
    ),
    Route("GET", "/health/live", operations.live, _SYSTEM, "Is this process alive?"),
    Route("GET", "/health/ready", operations.ready, _SYSTEM, "Can this node accept mail?"),
    Route("GET", "/", operations.root, _SYSTEM, "Where to read on", hidden=True),
)  # fmt: skip

ADMIN: tuple[Route, ...] = (
    Route("GET", "/metrics", operations.metrics, _SYSTEM, "Metrics"),
    Route("GET", "/health/live", operations.live, _SYSTEM, "Is this process alive?"),
    Route("GET", "/health/detail", operations.detail, _SYSTEM, "Every check"),
)
