"""Everpost itself: `everpost serve` with its defaults, loaded over HTTP, delivering to the sink."""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.far_end import FarEnd
from bench.figures import WARM_UP, Figures, Work
from bench.processes import end, finish, measure
from tests.support.postgres import serving_postgres

__all__ = ["KEY", "Service", "load", "run", "run_on_postgres"]

KEY = "ep_bench0bench0_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
READY_S = 60.0
TIMEOUT_S = 300.0
_ALGORITHMS = {"rsa": ["rsa-sha256"], "ed25519": ["ed25519-sha256"]}
_SERVER = {"shared_buffers": "256MB", "max_wal_size": "2GB"}
_TOP = Path(__file__).parent.parent


class Service:
    """One `everpost serve` in a folder of its own, with one relay and one domain. `store`: settings
    of another store than the embedded one."""

    def __init__(
        self, sink_port: int, *, signing: str, store: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bench-everpost-"))
        with (self.folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "everpost", "serve", "--data", str(self.folder / "d")),
                    *("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"),
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                env={
                    **os.environ,
                    "EVERPOST_FIRST_API_KEY": KEY,
                    "EVERPOST_NODE_HOSTNAME": "bench.test",
                    **store,
                },
            )
        try:
            self.port = self._await_ready()
            self._call("/relays", {"url": f"smtp://127.0.0.1:{sink_port}", "tls": "none"})
            algorithms = _ALGORITHMS.get(signing)
            domain: dict[str, object] = {"name": "example.test", "trust": True}
            domain |= {"algorithms": algorithms} if algorithms else {"signing": "unsigned"}
            self._call("/domains", domain)
        except BaseException:
            self.close()
            raise

    def _await_ready(self) -> int:
        assert self.process.stdout is not None
        alarm = threading.Timer(READY_S, self.process.kill)  # ends the reading below, too
        alarm.start()
        try:
            for line in self.process.stdout:
                found = re.search(rb"ready at http://[0-9.]+:(\d+)", line)
                if found:
                    return int(found[1])
        finally:
            alarm.cancel()
        last = (self.folder / "log").read_text().strip().splitlines()[-1:]
        raise RuntimeError(f"everpost serve was not ready within {READY_S:g} s: {''.join(last)}")

    def _call(self, path: str, body: object) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request(
            "POST",
            path,
            body=json.dumps(body),
            headers={"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"},
        )
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status >= 300:
            raise RuntimeError(f"{path}: {answer.status} {text!r}")

    def close(self) -> None:
        end(self.process, 60)
        shutil.rmtree(self.folder, ignore_errors=True)


def run_on_postgres(work: Work, *, connections: int = 64) -> Figures:
    """The same on a PostgreSQL of its own beside it, with its flushes; its CPU and memory count."""
    with serving_postgres(quick=False, settings=_SERVER) as server:
        server.create("bench")
        store = {
            "EVERPOST_POSTGRES_URL": server.url("bench"),
            "EVERPOST_POSTGRES_STANDBYS": "0",
        }
        return run(work, connections=connections, store=store, beside=[server.pid])


def run(
    work: Work,
    *,
    connections: int = 64,
    store: Mapping[str, str] = MappingProxyType({}),
    beside: Sequence[int] = (),
) -> Figures:
    """Accept and deliver what `work` says. `beside`: further processes that count."""
    with FarEnd() as sink:
        service = Service(sink.port, signing=work.signing, store=store)
        try:
            load(service, messages=WARM_UP, connections=8)  # every connection and thread is up
            sink.wait(WARM_UP, 60)
            time.sleep(0.5)
            sink_cpu = sink.cpu_s
            with measure([service.process.pid, *beside]) as usage:
                found = load(
                    service,
                    messages=work.messages,
                    batch=work.batch,
                    rate=work.rate,
                    connections=connections,
                    destinations=work.destinations,
                    attachment=max(0, work.size - 2048) * 76 // 78,  # the rest is ends of lines
                )
                if found["errors"]:
                    raise RuntimeError(f"answers that were not 200: {found['errors']}")
                ended = sink.wait(WARM_UP + work.messages, TIMEOUT_S)
                time.sleep(0.3)  # the last outcomes are being written
            thousands = work.messages / 1000
            return Figures(
                messages=work.messages,
                accepted_per_s=found["accepted_per_s"],
                delivered_per_s=work.messages / (ended - found["started_at"]),
                cpu_s_per_1000=usage.cpu_s / thousands,
                peak_mb=usage.peak_mb,
                generator_cpu_s_per_1000=found["cpu_s"] / thousands,
                sink_cpu_s_per_1000=(sink.cpu_s - sink_cpu) / thousands,
                p50_ms=found["p50_ms"],
                p99_ms=found["p99_ms"],
            )
        finally:
            service.close()


def load(service: Service, **options: float) -> dict[str, Any]:
    """Post with `bench.http_load`; what it printed."""
    words = [f"--{name}={value}" for name, value in options.items()]
    printed, _ = finish(
        [
            *(sys.executable, "-m", "bench.http_load", "127.0.0.1", str(service.port), KEY),
            *(f"--timeout={TIMEOUT_S:g}", *words),
        ],
        seconds=TIMEOUT_S + 30,
        cwd=_TOP,
    )
    found: dict[str, Any] = json.loads(printed)
    return found
