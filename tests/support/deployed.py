"""HAProxy and nginx running the very files of `deploy/`, with ports and folders of the test."""

import os
import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.waiting import wait_until

__all__ = ["DEPLOY", "Balancer", "free_ports", "nginx_settings"]

DEPLOY = Path(__file__).parents[2] / "deploy"

_AROUND = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    include {folder}/everpost.conf;
}}
"""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has."""
    found = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(sock.getsockname()[1]) for sock in found]
    for sock in found:
        sock.close()
    return ports


def nginx_settings(folder: Path, values: Mapping[str, str], *, template: str = "") -> Path:
    """A whole configuration around the template; a `server` line with no value is left out."""
    text = template or (DEPLOY / "nginx" / "everpost.conf.template").read_text(encoding="utf-8")

    def filled(line: str) -> str:
        return re.sub(r"\$\{(\w+)\}", lambda name: values[name[1]], line)

    names = re.compile(r"\$\{(\w+)\}")
    lines = (
        line
        for line in text.splitlines()
        if not line.strip().startswith("server ${") or all(n in values for n in names.findall(line))
    )
    kept = "\n".join(line if line.lstrip().startswith("#") else filled(line) for line in lines)
    (folder / "everpost.conf").write_text(kept + "\n", encoding="utf-8")
    settings = folder / "nginx.conf"
    settings.write_text(_AROUND.format(folder=folder), encoding="utf-8")
    return settings


class Balancer:
    """`with Balancer("haproxy", folder, [house.port, …]) as front: connect to front.port`.

    `kind`: `haproxy` or `nginx` for up to three nodes (`nodes` are ports of 127.0.0.1; places that
    are left have nobody), `haproxy-one` for the file for one machine.
    """

    def __init__(self, kind: str, folder: Path, nodes: Sequence[int]) -> None:
        folder.mkdir(exist_ok=True)
        self.log = folder / "log"
        self.port, self.status_port, *nobody = free_ports(5)
        addresses = [f"127.0.0.1:{port}" for port in nodes]
        if kind == "haproxy":
            addresses += [f"127.0.0.1:{port}" for port in nobody[len(nodes) :]]
        names = {f"EVERPOST_{n}": address for n, address in enumerate(addresses, 1)}
        here = f"127.0.0.1:{self.port}"
        self._environment = {**os.environ, **names}
        if kind == "nginx":
            settings = nginx_settings(folder, {**names, "EVERPOST_LISTEN": here})
            self._command = ["/usr/sbin/nginx", "-p", str(folder), "-e", "stderr"]
            self._command += ["-c", str(settings)]
        else:
            name = "api-one-machine.cfg" if kind == "haproxy-one" else "api.cfg"
            self._environment["EVERPOST_BIND"] = here
            self._environment["EVERPOST_STATUS"] = f"127.0.0.1:{self.status_port}"
            self._command = ["/usr/sbin/haproxy", "-db", "-f", str(DEPLOY / "haproxy" / name)]

    def __enter__(self) -> "Balancer":
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        try:
            wait_until(
                self._listens, seconds=20, what=lambda: f"it to listen\n{self.log.read_text()}"
            )
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
