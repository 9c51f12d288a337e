"""A server with scripted answers, on a Unix socket or loopback: the CLI's far end in tests."""

import json
import os
import socket
import socketserver
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

__all__ = ["Asked", "TinyApi"]


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


class TinyApi:
    """`with TinyApi(data / "run/admin.sock") as api: api.on("GET /status", {...})`.

    `None` for the socket listens on loopback TCP; then `url` says where. Several answers given to
    one route come in turn, the last one for ever.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.asked: list[Asked] = []
        self._routes: dict[str, list[tuple[int, Any, Mapping[str, str]]]] = {}
        self._server = _server(path, self._handler())
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )

    def on(
        self,
        route: str,
        answer: Any,
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`route` is `GET /path`; bytes are answered as they are."""
        self._routes.setdefault(route, []).append((status, answer, headers or {}))

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    def __enter__(self) -> "TinyApi":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, route: str) -> tuple[int, Any, Mapping[str, str]]:
        answers = self._routes.get(route)
        if answers is None:
            gone = {"statusCode": 404, "name": "not_found", "message": f"no {route}"}
            return 404, gone, {}
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _any(self) -> None:
                length = int(self.headers.get("content-length", 0))
                sent = self.rfile.read(length)
                parts = urlsplit(self.path)
                api.asked.append(
                    Asked(
                        self.command,
                        parts.path,
                        dict(parse_qsl(parts.query)),
                        {name.lower(): value for name, value in self.headers.items()},
                        json.loads(sent) if sent else None,
                    )
                )
                status, answer, headers = api._answer(f"{self.command} {parts.path}")
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815  http.server's names

            def address_string(self) -> str:
                return "client"

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


def _server(
    path: Path | None, handler: type[BaseHTTPRequestHandler]
) -> socketserver.TCPServer | socketserver.UnixStreamServer:
    if path is None:
        return socketserver.TCPServer(("127.0.0.1", 0), handler)
    path.parent.mkdir(parents=True, exist_ok=True)
    server = socketserver.UnixStreamServer("unused", handler, bind_and_activate=False)
    # The same way round the length of sun_path that a server takes.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        server.socket.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
    assert server.socket.family == socket.AF_UNIX
    server.server_activate()
    return server
