"""Everpost itself: `everpost serve` with its defaults, loaded over HTTP, delivering to the sink."""

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.far_end import FarEnd
from bench.processes import measure

__all__ = ["run"]

KEY = "ep_bench0bench0_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"


class Service:
    """One `everpost serve` in a folder of its own."""

    def __init__(self, sink_port: int, *, signing: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="bench-everpost-"))
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "everpost", "serve", "--data", str(self.folder / "d")),
                *("--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"),
            ],
            stdout=subprocess.PIPE,
            stderr=(self.folder / "log").open("w"),
            env={
                **os.environ,
                "EVERPOST_FIRST_API_KEY": KEY,
                "EVERPOST_NODE_HOSTNAME": "bench.test",
            },
        )
        self.port = self._await_ready()
        self._call("/relays", {"url": f"smtp://127.0.0.1:{sink_port}", "tls": "none"})
        algorithms = {"rsa": ["rsa-sha256"], "ed25519": ["ed25519-sha256"]}.get(signing)
        domain: dict[str, object] = {"name": "example.test", "trust": True}
        domain |= {"algorithms": algorithms} if algorithms else {"signing": "unsigned"}
        self._call("/domains", domain)

    def _await_ready(self) -> int:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            found = re.search(rb"ready at http://[0-9.]+:(\d+)", line)
            if found:
                return int(found[1])
        raise RuntimeError((self.folder / "log").read_text())

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
        self.process.terminate()
        self.process.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)


def run(
    messages: int,
    *,
    signing: str = "unsigned",
    batch: int = 1,
    rate: float = 0.0,
    connections: int = 64,
    destinations: int = 1,
    attachment: int = 0,
) -> dict[str, float]:
    """Accept and deliver `messages`: rates per second, latencies, CPU, peak memory."""
    with FarEnd() as sink:
        service = Service(sink.port, signing=signing)
        try:
            _load(service, 200, connections=8)  # every connection and thread is up
            sink.wait(200, 60)
            time.sleep(0.5)
            before = sink.count
            with measure([service.process.pid]) as usage:
                load = _load(
                    service,
                    messages,
                    batch=batch,
                    rate=rate,
                    connections=connections,
                    destinations=destinations,
                    attachment=attachment,
                )
                ended = sink.wait(before + messages, 300)
                time.sleep(0.3)  # the last outcomes are being written
            if load["errors"]:
                raise RuntimeError(f"answers that were not 200: {load['errors']}")
            return {
                "messages": messages,
                "accepted_per_s": load["accepted_per_s"],
                "delivered_per_s": messages / (ended - load["started_at"]),
                "p50_ms": load["p50_ms"],
                "p99_ms": load["p99_ms"],
                "cpu_s_per_1000": usage.cpu_s / messages * 1000,
                "peak_mb": usage.peak_mb,
            }
        finally:
            service.close()


def _load(service: Service, messages: int, **options: float) -> dict[str, float]:
    words = [f"--{name}={value:g}" for name, value in options.items()]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "bench.http_load", "127.0.0.1", str(service.port), KEY),
            *(f"--messages={messages}", *words),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=400,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found
