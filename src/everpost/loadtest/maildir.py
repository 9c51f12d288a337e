"""Writing messages to a Maildir: whole into tmp/, then renamed to new/, so that no reader ever
sees a part. Nothing is synced to disk: a sink is no archive."""

import os
from collections.abc import Sequence
from pathlib import Path

from everpost.clock import Clock

__all__ = ["Maildir"]


class Maildir:
    """A Maildir for one process to write to. `envelope_headers` puts X-Envelope-From and
    X-Envelope-To (one a recipient) in front of the message, which is otherwise kept to the octet,
    CRLF included."""

    def __init__(self, path: Path, clock: Clock, *, envelope_headers: bool = False) -> None:
        for part in ("tmp", "new", "cur"):
            (path / part).mkdir(parents=True, exist_ok=True)
        self._tmp = os.fspath(path / "tmp")
        self._new = os.fspath(path / "new")
        self._clock = clock
        self._envelope_headers = envelope_headers
        self._process = os.getpid()
        self._count = 0

    def store(self, sender: str, recipients: Sequence[str], content: bytes) -> str:
        """Write one message; its file name in new/. Raises OSError, then leaves nothing behind."""
        self._count += 1
        seconds, milliseconds = divmod(self._clock.now(), 1000)
        name = f"{seconds}.M{milliseconds:03}P{self._process}Q{self._count}.sink"
        head = b""
        if self._envelope_headers:
            lines = [f"X-Envelope-From: <{sender}>", *(f"X-Envelope-To: <{r}>" for r in recipients)]
            head = "".join(line + "\r\n" for line in lines).encode()
        unfinished = f"{self._tmp}/{name}"
        try:
            # O_EXCL: two sinks on one Maildir must never overwrite each other's mail.
            with open(unfinished, "xb", buffering=0) as file:
                _write_all(file.fileno(), head + content)
            os.rename(unfinished, f"{self._new}/{name}")
        except OSError:
            try:
                os.unlink(unfinished)
            except OSError:
                pass
            raise
        return name


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
