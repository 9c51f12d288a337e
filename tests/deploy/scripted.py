"""A node that does what the test says, on a port of its own: takes, refuses, resets, hangs up."""

import http.server
import socket
import struct
import threading
from typing import Any

__all__ = ["Scripted"]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away is none of the test's business."""


class Scripted:
    """`with Scripted() as node: … node.does = "reset"`.

    `does`: `take` (200), `refuse` (503), `reset` (reads the request, then cuts). `ready`: what
    /health/ready and / say. `taken`: bodies of the requests that came in, whatever it did;
    `looks`: how often its health was asked for.
    """

    def __init__(self, does: str = "take", *, ready: bool = True) -> None:
        self.does = does
        self.ready = ready
        self.taken: list[bytes] = []
        self.looks = 0
        node = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path in ("/health/ready", "/primary"):
                    node.looks += 1
                    self._answer(200 if node.ready else 503, b"{}")
                    return
                node.taken.append(body)
                if node.does == "reset":
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.close_connection = True
                    self.connection.close()
                elif node.does == "refuse":
                    self._answer(503, b"node says no")
                else:
                    self._answer(200, b"taken")

            do_GET = do_POST = do_OPTIONS = _do  # noqa: N815  names that http.server calls

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> "Scripted":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
