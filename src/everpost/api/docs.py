"""The human pages of /docs, rendered from the OpenAPI document: one page, no scripts, nothing from
elsewhere, under a content security policy that would refuse both."""

import base64
import hashlib
import re
from html import escape
from importlib.resources import files
from typing import Any

from everpost.api.answers import Answer

__all__ = ["page"]

_METHODS = ("get", "post", "patch", "put", "delete")
_CODE = re.compile(r"`([^`]+)`")


def page(document: dict[str, Any]) -> Answer:
    """The answer to GET /docs."""
    style = files("everpost.api").joinpath("docs.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    )
    return Answer(
        200,
        _html(document, style).encode(),
        content_type=b"text/html; charset=utf-8",
        headers=[
            (b"content-security-policy", policy.encode()),
            (b"referrer-policy", b"no-referrer"),
        ],
    )


def _html(document: dict[str, Any], style: str) -> str:
    info = document["info"]
    operations = [
        (path, method, operations[method])
        for path, operations in document["paths"].items()
        for method in _METHODS
        if method in operations
    ]
    menu, sections = [], []
    for tag in (entry["name"] for entry in document["tags"]):
        mine = [each for each in operations if each[2]["tags"] == [tag]]
        links = "".join(
            f'<li><a href="#{escape(operation["operationId"])}">{escape(operation["summary"])}</a>'
            for _, _, operation in mine
        )
        menu.append(f"<h2>{escape(tag)}</h2><ul>{links}</ul>")
        sections.append(f"<h2>{escape(tag)}</h2>")
        sections += [
            _operation(path, method, operation, document) for path, method, operation in mine
        ]
    shapes = "".join(
        _shape(name, schema) for name, schema in sorted(document["components"]["schemas"].items())
    )
    url = escape(document["servers"][0]["url"])
    links = (
        f"{''.join(menu)}"
        '<h2>More</h2><ul><li><a href="#shapes">Shapes</a>'
        '<li><a href="/openapi.json">openapi.json</a></ul>'
    )
    brand = f'<p class="brand">{escape(info["title"])} <small>{escape(info["version"])}</small></p>'
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(info['title'])} API</title><style>{style}</style></head><body>"
        f'<nav class="side" aria-label="Contents">{brand}{links}</nav>'
        # Without scripts nothing closes a <details> for small screens: they have their own.
        f'<nav class="top" aria-label="Contents">{brand}'
        f"<details><summary>Contents</summary>{links}</details></nav>"
        f"<main><h1>{escape(info['title'])} API</h1>{_paragraphs(info['description'])}"
        f"{_example(url)}{''.join(sections)}"
        f'<h2 id="shapes">Shapes</h2>{shapes}</main></body></html>'
    )


def _example(url: str) -> str:
    return (
        f"<pre><code>curl {url}/emails \\\n"
        "  -H 'Authorization: Bearer YOUR_KEY' \\\n"
        "  -H 'Content-Type: application/json' \\\n"
        "  -H 'Idempotency-Key: order-1234' \\\n"
        '  -d \'{"from":"you@example.com","to":"them@example.net",'
        '"subject":"Hello","text":"Hi!"}\'</code></pre>'
    )


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_prose(paragraph)}</p>" for paragraph in text.split("\n\n"))


def _prose(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    rows = "".join(
        _field(each["name"], each["schema"], each.get("description", ""), each["in"])
        for each in operation.get("parameters", ())
    )
    parts = [
        f'<article id="{escape(operation["operationId"])}"><h3>{escape(operation["summary"])}</h3>'
        f'<p class="call"><b class="{method}">{method.upper()}</b> <code>{escape(path)}</code></p>'
        f"<p>{_prose(operation['description'])}</p>"
    ]
    if rows:
        parts.append(f"<h4>Parameters</h4><dl>{rows}</dl>")
    if body := operation.get("requestBody"):
        schema = body["content"]["application/json"]["schema"]
        parts.append(f"<h4>Body</h4><p>{_type(schema)}</p>{_inline(schema, document)}")
    answers = "".join(
        f"<dt><code>{status}</code><dd>{_prose(answer['description'])}"
        f" {_type(answer['content']['application/json']['schema'])}"
        for status, answer in sorted(operation["responses"].items())
    )
    parts.append(f"<details><summary>Answers</summary><dl>{answers}</dl></details></article>")
    return "".join(parts)


def _inline(schema: dict[str, Any], document: dict[str, Any]) -> str:
    """The fields of a body, where the reader looks for them."""
    target = schema.get("items", schema).get("$ref", "")
    shape = document["components"]["schemas"].get(target.rpartition("/")[2])
    return "" if shape is None else f"<dl>{_fields(shape)}</dl>"


def _shape(name: str, schema: dict[str, Any]) -> str:
    return (
        f'<article id="shape-{escape(name)}"><h3><code>{escape(name)}</code></h3>'
        f"<p>{_prose(schema.get('description', ''))}</p><dl>{_fields(schema)}</dl></article>"
    )


def _fields(schema: dict[str, Any]) -> str:
    required = set(schema.get("required", ()))
    return "".join(
        _field(name, field, field.get("description", ""), "required" if name in required else "")
        for name, field in schema.get("properties", {}).items()
    )


def _field(name: str, schema: dict[str, Any], description: str, note: str) -> str:
    mark = f" <small>{escape(note)}</small>" if note else ""
    return f"<dt><code>{escape(name)}</code> {_type(schema)}{mark}<dd>{_prose(description)}"


def _type(schema: Any) -> str:
    """A schema in a few words, with links to shapes."""
    if reference := schema.get("$ref"):
        name = escape(reference.rpartition("/")[2])
        return f'<a href="#shape-{name}">{name}</a>'
    if "anyOf" in schema:
        kinds = (_type(each) for each in schema["anyOf"] if each.get("type") != "null")
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return " or ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return f"<i>{escape(str(kind))}</i>"
