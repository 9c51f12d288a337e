"""Everpost on the three hosts, and all of it as one server: asked by way of the balancers."""

import http.client
import json
import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from tests.cluster import configuration
from tests.cluster.cluster import Cluster
from tests.cluster.configuration import API
from tests.cluster.hosts import ROOT, Host
from tests.support.house import KEY, Answer, House
from tests.support.waiting import wait_until

__all__ = ["Front", "Nodes"]

_READY_S = 60.0


class Front(House):
    """A house whose API is that of all nodes: either balancer is asked, the other one if the first
    does not answer. It is not started or stopped."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.folder / "front", key=KEY)
        self._cluster = cluster
        self.port = API

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> Answer:
        with self._cluster.clients.inside():
            for balancer in self._cluster.balancers:
                self.host = balancer.address
                with suppress(OSError, http.client.HTTPException):
                    return super().call(method, path, body, headers=headers, timeout=timeout)
        raise OSError(f"neither balancer answered {method} {path}")

    def tail(self) -> str:
        return "no node"


class Nodes:
    """`start()` sets up the hosts, starts a node on each and waits until they are ready. `pooled`:
    by way of a PgBouncer on each host. `relays`: URLs by name; the others find the first node set
    up when they start, so that none of them takes mail for the sandbox."""

    def __init__(self, cluster: Cluster, *, pooled: bool = False) -> None:
        self._cluster = cluster
        self._pooled = pooled
        self.front = Front(cluster)

    def start(
        self,
        relays: Mapping[str, str],
        *,
        stream: Mapping[str, Any] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        secret = self._cluster.folder / "secret"
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_urlsafe(48), encoding="ascii")
        for n, host in enumerate(self._cluster.hosts):
            given = configuration.everpost(
                self._cluster.layout,
                host.name,
                secret_file=str(secret),
                pooled=self._pooled,
                key=KEY,
            )
            host.settings = {**given, **(settings or {})}
            host.pools, host.runs_everpost = self._pooled, True
            if self._pooled:
                host.start_pgbouncer()
            if n:
                self._share_master_key(host)
            host.start_everpost()
            if n == 0:  # it makes the tables, the first API key and the master key
                self.wait_ready(host)
                self._wait_front()
                self._set_up(relays, stream)
        for host in self._cluster.hosts[1:]:
            self.wait_ready(host)

    def _wait_front(self) -> None:
        wait_until(
            lambda: self.front.get("/health/ready").status == 200,
            seconds=_READY_S,
            what="the balancers to find a node",
        )

    def _set_up(self, relays: Mapping[str, str], stream: Mapping[str, Any] | None) -> None:
        for name, url in relays.items():
            self.front.relay(url, name=name, tls="none")
        self.front.domain(signing="unsigned")
        if stream is not None:
            answer = self.front.call("PATCH", "/streams/transactional", stream)
            assert answer.status == 200, answer

    def _share_master_key(self, host: Host) -> None:
        """As an operator does it: copied from the first node's data."""
        (host.data / "everpost").mkdir(mode=0o700, exist_ok=True)
        name = "everpost/master.key"
        key = host.data / name
        key.touch(mode=0o600)
        key.write_bytes((self._cluster.hosts[0].data / name).read_bytes())

    def wait_ready(self, host: Host, *, seconds: float = _READY_S) -> None:
        wait_until(
            lambda: self.ready(host),
            seconds=seconds,
            what=lambda: f"everpost on {host.name} to be ready\n{self.log(host)[-3000:]}",
        )

    def ready(self, host: Host) -> bool:
        with suppress(OSError):
            return self._cluster.http(host.address, API, "/health/ready")[0] == 200
        return False

    def log(self, host: Host) -> str:
        path = self._cluster.folder / "logs" / f"{host.name}-everpost.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def leader(self) -> str | None:
        """The host whose node does what one does for all; None if nobody knows."""
        with suppress(OSError, KeyError, ValueError):
            rows = self.front.call("GET", "/nodes", timeout=2).json["data"]
            return next((str(row["name"]) for row in rows if row.get("leader")), None)
        return None

    def cli(
        self, host: Host, *words: str, seconds: float = 60
    ) -> "subprocess.CompletedProcess[str]":
        """`everpost WORDS` on a host, with that node's settings."""
        with host.namespace.inside():
            return subprocess.run(
                [host.python, "-m", "everpost", *words],
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
                cwd=ROOT,
                env={"PATH": os.environ.get("PATH", ""), **host.settings},
            )

    def findings(self) -> Sequence[str]:
        """What `everpost verify` finds in the books."""
        host = self._cluster.hosts[0]
        data = str(host.data / "everpost")
        done = self.cli(host, "verify", "--json", "--data", data, seconds=180)
        try:
            document = json.loads(done.stdout)
        except ValueError:
            return [f"verify ended with {done.returncode}: {done.stderr[-500:]}"]
        first = [str(each) for each in document["findings"]["first"]]
        return first or ([] if document["consistent"] else [f"not consistent: {document}"])
