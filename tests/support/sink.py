"""`everpost sink` in a process of its own: misbehaves by rules, and takes much mail."""

import json
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["Sink"]


class Sink:
    """`with Sink(tmp_path, "rcpt silent domain=hole.test") as sink: house.relay(sink.url)`."""

    def __init__(self, folder: Path, *rules: str) -> None:
        self._arrivals = folder / "arrivals.jsonl"
        words = ["--listen", "127.0.0.1:0", "--json", "--arrivals", str(self._arrivals)]
        for rule in rules:
            words += ["--rule", rule]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "everpost", "sink", *words], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        said = json.loads(self._process.stdout.readline())
        self.port = int(said["listening"]["port"])

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.close()

    def close(self) -> dict[str, float]:
        """End it. When each message arrived (monotonic seconds), by its id at Everpost."""
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=60)
        lines = self._arrivals.read_text(encoding="utf-8").splitlines()
        arrived = [json.loads(line) for line in lines]
        return {a["message_id"].partition("@")[0]: a["at"] for a in arrived}
