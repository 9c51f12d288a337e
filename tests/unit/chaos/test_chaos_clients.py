"""An answer that makes no sense must not pass for an unknown one."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.chaos.clients import Client
from tests.chaos.history import History
from tests.support.house import House


@pytest.mark.parametrize("body", [b"no json", b"{}", b"[]"])
def test_a_client_that_is_answered_nonsense_says_so(tmp_path: Path, body: bytes) -> None:
    class Nonsense(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    history = History(tmp_path / "history.jsonl")
    with HTTPServer(("127.0.0.1", 0), Nonsense) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        address = SimpleNamespace(host="127.0.0.1", port=server.server_port, key="k")
        client = Client(cast(House, address), history, number=0, seed=7, rate=1e6)
        client.start()
        client.join(20)
        server.shutdown()
        thread.join()
    history.close()
    assert not client.is_alive()
    assert client.error is not None
