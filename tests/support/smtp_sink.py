"""Postfix's `smtp-sink`: a far end with misfortunes of its own, that keeps what it was given."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.support.far_end import Received
from tests.support.waiting import wait_until

__all__ = ["SmtpSink"]

_PROGRAM = "/usr/sbin/smtp-sink"
_ESTABLISHED, _LISTEN = "01", "0A"  # in /proc/net/tcp
_ENVELOPE = re.compile(r"X-(Mail|Rcpt)-Args: <([^>]*)>")


class SmtpSink:
    """`with SmtpSink("-q", ".") as sink: … sink.url … sink.messages()`. The options are those of
    smtp-sink(1); a port and a folder for what it takes are chosen here.
    """

    def __init__(self, *options: str) -> None:
        if not Path(_PROGRAM).exists():
            raise AssertionError("smtp-sink is missing: install the Debian package postfix")
        self._options = options
        self._folder = Path(tempfile.mkdtemp(prefix="everpost-test-sink-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def __enter__(self) -> "SmtpSink":
        user: list[str] = []
        if os.geteuid() == 0:  # it insists on less
            nobody = pwd.getpwnam("nobody")
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
            user = ["-u", "nobody"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        where = f"127.0.0.1:{self.port}"
        self._process = subprocess.Popen(
            [_PROGRAM, *user, *self._options, "-d", f"{self._folder}/m.", where, "64"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._listens, seconds=20, what="smtp-sink to listen")
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """kill -9. The kernel resets every connection on which bytes lay unread."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """SIGSTOP: the kernel goes on to accept connections, and nobody speaks."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def unread(self) -> int:
        """Octets that clients have sent and it has not read."""
        return sum(
            int(fields[4].partition(":")[2], 16)
            for fields in self._sockets()
            if fields[3] == _ESTABLISHED
        )

    def _listens(self) -> bool:
        """Asked of the kernel: a connection of ours would be one of the test's."""
        return any(fields[3] == _LISTEN for fields in self._sockets())

    def _sockets(self) -> list[list[str]]:
        local = f"0100007F:{self.port:04X}"
        with open("/proc/net/tcp", encoding="ascii") as table:
            return [fields for fields in map(str.split, table) if fields[1] == local]

    def messages(self) -> list[Received]:
        """What it wrote down, those included that it did not answer for."""
        found = []
        for path in sorted(self._folder.iterdir(), key=lambda p: p.stat().st_mtime_ns):
            text = path.read_bytes()
            if text:
                found.append(_read(text))
        return found


def _read(text: bytes) -> Received:
    """Its headers on top carry the envelope; its lines end in LF, and one empty line too many
    ends the file."""
    lines = text.split(b"\n")
    sender, recipients = "", []
    while lines[0].startswith((b"X-", b"Received:", b"\t")):
        line = _ENVELOPE.match(lines.pop(0).decode())
        if line is None:
            continue
        if line[1] == "Mail":
            sender = line[2]
        else:
            recipients.append(line[2])
    return Received(sender, recipients, b"\r\n".join(lines[:-1]))
