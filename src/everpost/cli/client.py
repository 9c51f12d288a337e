"""Talks to the API for commands: over `--url` with `--key`, or the local operator's socket."""

import json
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import click

from everpost.assembly.places import Places
from everpost.cli.exits import Failed, NotReached, Wrong
from everpost.cli.show import Printer, visible
from everpost.net.http import Answer, Broken, Origin, Unreachable, request

__all__ = ["Api", "connected", "json_option", "path_of"]

PAGE = 100
"""Rows asked for at once; the API's own most."""

R = TypeVar("R")


class Api:
    """The native API as methods: JSON in, JSON out. Raises Failed, NotReached."""

    def __init__(self, origin: Origin, key: str | None, *, timeout_s: float = 30.0) -> None:
        self._origin = origin
        self._key = key
        self._timeout_s = timeout_s

    def get(self, path: str, **query: object) -> dict[str, Any]:
        asked = {name: str(value) for name, value in query.items() if value is not None}
        return self._call("GET", f"{path}?{urlencode(asked)}" if asked else path)

    def post(
        self, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        return self._call("POST", path, body=body, headers=headers)

    def patch(self, path: str, body: object) -> dict[str, Any]:
        return self._call("PATCH", path, body=body)

    def delete(self, path: str) -> dict[str, Any]:
        return self._call("DELETE", path)

    def rows(
        self, path: str, *, limit: int | None = None, cursor: str = "id"
    ) -> Iterator[dict[str, Any]]:
        """Every row of a list, page after page, at most `limit`; `cursor` is the field that its
        pages go by."""
        after: str | None = None
        left = limit
        while left is None or left > 0:
            page = self.get(path, limit=PAGE if left is None else min(left, PAGE), after=after)
            data = page.get("data") or []
            yield from data if left is None else data[:left]
            if left is not None:
                left -= len(data)
            if not data or not page.get("has_more"):
                return
            after = str(data[-1][cursor])

    def find(self, path: str, wanted: str, *, noun: str, cursor: str = "id") -> dict[str, Any]:
        """The row of a list whose id or name is `wanted`; a name that several bear is refused."""
        rows = self.rows(path, cursor=cursor)
        found = [row for row in rows if wanted in (row.get("id"), row.get("name"))]
        if not found:
            raise Failed(f"there is no {noun} {wanted}")
        if len(found) > 1:
            ids = ", ".join(str(row["id"]) for row in found)
            raise Failed(f"several {noun}s are called {wanted}; name one by its id: {ids}")
        return found[0]

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        sent = {"accept": "application/json", "user-agent": "everpost-cli", **(headers or {})}
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            sent["content-type"] = "application/json"
        if self._key is not None:
            sent["authorization"] = f"Bearer {self._key}"
        try:
            answer = request(
                self._origin,
                method,
                path=path,
                headers=sent,
                body=content,
                timeout_s=self._timeout_s,
            )
        except Unreachable as error:
            raise NotReached(_advice(self._origin, error)) from error
        except Broken as error:
            raise NotReached(
                f"{self._origin} broke off ({error}); whether the request was carried out is "
                "not known"
            ) from error
        return _read(answer, self._origin)


def path_of(*parts: str) -> str:
    """A path of segments, each quoted."""
    return "".join(f"/{quote(part, safe='@')}" for part in parts)


def _read(answer: Answer, origin: Origin) -> dict[str, Any]:
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        value = None
    if 200 <= answer.status < 300 and isinstance(value, dict):
        return value
    if isinstance(value, dict) and isinstance(value.get("message"), str):
        wait = answer.headers.get("retry-after")
        later = f" (try again in {wait} s)" if wait else ""
        raise Failed(visible(f"{value.get('name', answer.status)}: {value['message']}{later}"))
    raise Failed(f"{origin} answered {answer.status}, and not as Everpost's API does")


def _advice(origin: Origin, error: Unreachable) -> str:
    if origin.unix is None:
        return f"{origin} could not be reached: {error}"
    if isinstance(error.__cause__, PermissionError):
        return f"{origin} may not be opened; run this as the user that runs `everpost serve`"
    data = origin.unix.parent.parent
    return (
        f"no server is running on {data} ({error}: {origin})\n"
        f"start it with `everpost serve --data {data}`, name another directory with --data, "
        "or a server with --url and --key"
    )


def json_option(command: Callable[..., R]) -> Callable[..., R]:
    """The `--json` option."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def connected(command: Callable[..., R]) -> Callable[..., R]:
    """Options that say which server, and `--json`; the command gets an `Api` and a `Printer`
    before its own arguments."""

    @click.option(
        "--url",
        "server_url",
        envvar="EVERPOST_URL",
        show_envvar=True,
        metavar="URL",
        help="Server to talk to. Default: the one that runs on --data.",
    )
    @click.option(
        "--key",
        "server_key",
        envvar="EVERPOST_API_KEY",
        show_envvar=True,
        metavar="KEY",
        help="API key for --url. Better set in the environment than on the command line.",
    )
    @click.option(
        "--data",
        "server_data",
        envvar="EVERPOST_NODE_DATA",
        show_envvar=True,
        type=click.Path(path_type=Path, file_okay=False),
        default=Path("data"),
        show_default="./data",
        help="Data directory of the local server, which needs no key.",
    )
    @json_option
    @wraps(command)
    def run(
        *,
        server_url: str | None,
        server_key: str | None,
        server_data: Path,
        as_json: bool,
        **own: Any,
    ) -> R:
        try:
            api = Api(_origin(server_url, server_data), server_key if server_url else None)
            return command(api, Printer(as_json=as_json), **own)
        except Failed as error:
            error.as_json = as_json
            raise

    return run


def _origin(url: str | None, data: Path) -> Origin:
    if url is None:
        return Origin.from_socket(Places(data).operator_socket)
    try:
        return Origin.from_url(url)
    except ValueError as error:
        raise Wrong(f"--url {url}: {error}") from error
