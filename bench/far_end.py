"""The far end of every run: Postfix's own `smtp-sink`, which speaks PIPELINING and only counts."""

import os
import re
import socket
import subprocess
import threading
import time

__all__ = ["FarEnd"]

_COUNTS = re.compile(rb"mesg=(\d+)")


class FarEnd:
    """`with FarEnd() as sink: … sink.wait(n)`; `count` messages so far."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.count = 0
        self.last = 0.0
        self._changed = threading.Condition()

    def __enter__(self) -> "FarEnd":
        self._process = subprocess.Popen(
            ["smtp-sink", "-c", "-u", "nobody", f"127.0.0.1:{self.port}", "1000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._thread.join(5)

    def _read(self) -> None:
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        while chunk := os.read(fd, 65536):
            found = _COUNTS.findall(chunk)
            if found:
                with self._changed:
                    count = int(found[-1])
                    if count != self.count:
                        self.count, self.last = count, time.time()
                        self._changed.notify_all()

    def wait(self, count: int, seconds: float) -> float:
        """Wait until `count` messages in all; the wall time of the last one."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.count >= count, seconds):
                raise RuntimeError(f"{self.count} of {count} messages arrived in {seconds} s")
            return self.last
