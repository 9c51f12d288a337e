"""HAProxy and nginx in front of a port, each on a Unix socket of its own.

Both set `X-Front: seen` on every request that they know of: what arrives without it was smuggled
past them. They keep connections to the port open and share them, and let go of idle clients soon.
"""

import socket
import subprocess
from pathlib import Path

from tests.support.waiting import wait_until

__all__ = ["FRONTS", "Front"]

_HAPROXY = """
defaults
    mode http
    timeout connect 2s
    timeout server 5s
    timeout client {client_ms}ms
    timeout http-request 700ms
    timeout http-keep-alive {idle_ms}ms
    http-reuse always
frontend in
    bind unix@{folder}/front
    bind unix@{folder}/front-h2 proto h2
    http-request set-header X-Front seen
    default_backend everpost
backend everpost
    server one 127.0.0.1:{port}
"""

_NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    client_header_timeout 1s; client_body_timeout 1s; keepalive_timeout 1s;
    upstream everpost {{ server 127.0.0.1:{port}; keepalive 4; }}
    server {{
        listen unix:{folder}/front;
        location / {{
            proxy_pass http://everpost;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_set_header X-Front seen;
            proxy_ignore_client_abort on;
        }}
    }}
}}
"""

FRONTS = ("haproxy", "nginx")


class Front:
    """`with Front("haproxy", folder, port) as front: connect(front.path)`."""

    def __init__(self, kind: str, folder: Path, port: int, *, idle_ms: int = 300) -> None:
        """`idle_ms`: how long HAProxy leaves a client in peace between two requests."""
        self.path = str(folder / "front")
        self.log = folder / "log"
        settings = folder / "settings"
        text = _HAPROXY if kind == "haproxy" else _NGINX
        values = {"idle_ms": idle_ms, "client_ms": max(idle_ms, 700)}
        settings.write_text(text.format(folder=folder, port=port, **values), encoding="utf-8")
        self._command = (
            ["/usr/sbin/haproxy", "-db", "-f", str(settings)]
            if kind == "haproxy"
            else ["/usr/sbin/nginx", "-p", str(folder), "-e", str(self.log), "-c", str(settings)]
        )

    def __enter__(self) -> "Front":
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(
            self._listens, seconds=20, what=lambda: f"the front to listen\n{self.log.read_text()}"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.path) == 0
