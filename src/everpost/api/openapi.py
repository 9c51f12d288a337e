"""The OpenAPI 3.1 document, built from the route table and from the structs that decode requests
and encode answers."""

import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import msgspec

from everpost.api.bodies import DEMANDS
from everpost.api.routes import Route
from everpost.api.shapes import ProblemAnswer

__all__ = ["document"]

_REF = "#/components/schemas/{name}"

_ERRORS: dict[int, str] = {
    400: "The request contradicts itself, its body is not valid JSON, or the idempotency key is not"
    " 1 to 256 printable ASCII characters.",
    401: "No API key was given, or this one may not do that.",
    403: "The API key is not known, or the sender's domain is not verified.",
    404: "There is no such object, or it is not yours.",
    409: "It contradicts what there is; or the idempotency key came before with another request.",
    413: "The body, or the message in it, is too large.",
    415: "The body has a content encoding.",
    422: "A field is missing or wrong; `message` names it in backticks.",
    500: "An unexpected error; the answer has a request id.",
    503: "Nothing was done, as far as the server knows; try again after `Retry-After` seconds, with"
    " the same `Idempotency-Key`.",
}

_IN_PATH: dict[str, dict[str, Any]] = {
    "id": {"type": "string", "format": "uuid"},
    "name": {"type": "string", "minLength": 1},
    "number": {"type": "integer", "minimum": 1},
}

_INTRODUCTION = """\
Send email and see what became of it. The API has Resend's shape: its SDKs work unchanged when they
are pointed here.

A success means that the email is on disk: a crash a moment later loses nothing. Repeat a request
safely with an `Idempotency-Key`. Every answer is JSON; errors have `statusCode`, `name` and
`message`. Unknown fields and nulls are ignored where Resend has the endpoint, and refused where
only Everpost has it. Add or leave out a slash at the end of a path as you like.

What is no proper HTTP/1.1 never reaches an operation: it is answered 400, 408 (too slow), 431 (head
too large) or 501 (a transfer coding other than chunked), a connection too many 503."""


def document(routes: Iterable[Route], *, public_url: str) -> dict[str, Any]:
    """The whole document, as builtins."""
    shown = [route for route in routes if not route.hidden]
    schemas, components = _schemas(shown)
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Everpost",
            "version": version("everpost"),
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": public_url}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in shown)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key."}
            },
        },
    }


def _schemas(routes: list[Route]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """Each shown type's schema, and the components that they refer to."""
    types: list[Any] = [ProblemAnswer]
    for route in routes:
        types += [shape for shape in (route.body, route.answer) if shape is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    built = {
        "shown": dict(zip(map(repr, types), schemas, strict=True)),
        "named": {name: _described(name, schema) for name, schema in components.items()},
    }
    # msgspec calls a generic's instance `ListAnswer_EmailItem_`; people get `EmailItemList`.
    text = re.sub(r"\bListAnswer_(\w+?)_(?=\")", r"\1List", msgspec.json.encode(built).decode())
    renamed = msgspec.json.decode(text)
    return renamed["shown"], renamed["named"]


def _described(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """With all that it demands, and without the line ends that docstrings keep."""
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    demands = DEMANDS.get(name, {})
    for required in demands.get("required", ()):  # null is as good as absent: refused
        field = schema["properties"][required]
        del field["default"]
        field["anyOf"] = [kind for kind in field["anyOf"] if kind != {"type": "null"}]
    return {**schema, **demands}


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = []
    for name, schema in _IN_PATH.items():
        if f"{{{name}}}" in route.path:
            parameters.append({"name": name, "in": "path", "required": True, "schema": schema})
    for each in route.parameters:
        parameters.append(
            {
                "name": each.name,
                "in": each.place,
                "description": each.description,
                "schema": each.schema,
            }
        )
    operation: dict[str, Any] = {
        "operationId": route.name,
        "tags": [route.tag],
        "summary": route.summary,
        "description": route.description,
        "responses": {"200": _content("Success.", schemas[repr(route.answer)])},
    }
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[repr(route.body)]}},
        }
    operation["security"] = [] if route.right is None else [{"key": []}]
    problem = schemas[repr(ProblemAnswer)]
    for status in _statuses(route):
        operation["responses"][str(status)] = _content(_ERRORS[status], problem)
    return operation


def _content(description: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _statuses(route: Route) -> list[int]:
    """The error answers that an operation may give."""
    statuses = {400, 500, 503}
    if route.right is not None:
        statuses |= {401, 403}
    if route.absent:
        statuses.add(404)
    if route.parameters or route.body is not None:
        statuses.add(422)
    if route.body is not None:
        statuses |= {409, 413, 415}
    if route.conflict:
        statuses.add(409)
    if route.method == "POST":
        statuses.add(422)
    return sorted(statuses)
