"""The far end of every run: Postfix's own `smtp-sink`, which speaks PIPELINING and only counts."""

import os
import re
import shutil
import subprocess
import threading
import time

from bench.processes import await_port, cpu_s, end, free_port

__all__ = ["FarEnd"]

_COUNTS = re.compile(rb"mesg=(\d+)")


class FarEnd:
    """`with FarEnd() as sink: … sink.wait(n)`; `count` messages so far."""

    def __init__(self) -> None:
        self.port = free_port()
        self.count = 0
        self.last = 0.0
        self._changed = threading.Condition()

    def __enter__(self) -> "FarEnd":
        if shutil.which("smtp-sink") is None:
            raise RuntimeError("smtp-sink is missing: apt-get install postfix")
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            ["smtp-sink", "-c", *user, f"127.0.0.1:{self.port}", "1000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        try:
            await_port(self.port)
        except RuntimeError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        end(self._process)
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

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU used so far."""
        return cpu_s([self._process.pid])

    def wait(self, count: int, seconds: float) -> float:
        """Wait until `count` messages in all; the wall time of the last one."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.count >= count, seconds):
                raise RuntimeError(f"{self.count} of {count} messages arrived in {seconds:g} s")
            return self.last
