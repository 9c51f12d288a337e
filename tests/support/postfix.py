"""A Postfix of the test's own: real SMTP in, Maildir out, on a loopback port."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.support.waiting import wait_until

__all__ = ["MASTER", "Postfix"]

_MAIN = """\
compatibility_level = 3.6
queue_directory = {top}/queue
data_directory = {top}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = {top}/log/maillog
maillog_file_prefixes = {top}
myhostname = mx.receiver.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
local_recipient_maps =
smtputf8_enable = yes
message_size_limit = 52428800
virtual_mailbox_domains = static:all
virtual_mailbox_maps = static:inbox/
virtual_mailbox_base = {top}/mail
virtual_mailbox_limit = 0
virtual_minimum_uid = 100
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_transport = virtual
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = {restrictions}
in_flow_delay = 0s
default_process_limit = 20
{extra}
"""

MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
smtp unix - - n - - smtp
relay unix - - n - - smtp
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """`with Postfix() as mx: … mx.port … mx.messages()`. Needs root, as Postfix does.

    It lies in a folder of its own: its users must reach it, and pytest's folders are private.
    `restrictions` goes to smtpd_recipient_restrictions, `extra` are further main.cf lines.
    """

    def __init__(self, *, restrictions: str = "", extra: str = "") -> None:
        if shutil.which("postfix", path="/usr/sbin:/usr/bin") is None:
            raise AssertionError("Postfix is missing: install the Debian package postfix")
        if os.geteuid() != 0:
            raise AssertionError("Postfix starts only as root: run the tests as root")
        self._top = Path(tempfile.mkdtemp(prefix="everpost-test-postfix-"))
        self._restrictions = restrictions
        self._extra = extra
        self.port = 0

    def __enter__(self) -> "Postfix":
        self._lay_out()
        self.up()
        return self

    def up(self) -> None:
        """Start it; again, after `down`, on the same port."""
        self._run("start")
        wait_until(self._answers, seconds=20, what="Postfix to answer")

    def down(self) -> None:
        """End it at once, sessions and all; what has arrived stays."""
        self._run("abort", check=False)

    def __exit__(self, *_: object) -> None:
        self.down()
        shutil.rmtree(self._top, ignore_errors=True)

    def _lay_out(self) -> None:
        for folder in ("etc", "queue", "data", "log", "mail"):
            (self._top / folder).mkdir(parents=True, exist_ok=True)
        self._top.chmod(0o755)
        user = pwd.getpwnam("nobody")
        postfix = pwd.getpwnam("postfix")
        os.chown(self._top / "data", postfix.pw_uid, postfix.pw_gid)
        os.chown(self._top / "mail", user.pw_uid, user.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        etc = self._top / "etc"
        (etc / "main.cf").write_text(
            _MAIN.format(
                top=self._top,
                uid=user.pw_uid,
                gid=user.pw_gid,
                restrictions=self._restrictions,
                extra=self._extra,
            )
        )
        (etc / "master.cf").write_text(MASTER.format(port=self.port))

    def _run(self, verb: str, *, check: bool = True) -> None:
        said = self._top / "log" / f"postfix-{verb}"
        with said.open("wb") as out:  # a pipe would stay open for as long as a daemon held it
            done = subprocess.run(
                ["/usr/sbin/postfix", "-c", str(self._top / "etc"), verb],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                check=False,
                timeout=60,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )
        if check and done.returncode != 0:
            raise AssertionError(f"postfix {verb}: {said.read_text()}{self._log()}")

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                return connection.recv(512).startswith(b"220 ")
        except OSError:
            return False

    def _log(self) -> str:
        log = self._top / "log" / "maillog"
        return log.read_text() if log.exists() else ""

    @property
    def url(self) -> str:
        """As `everpost relays add` takes it."""
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def maildir(self) -> Path:
        """Where all that arrives is kept."""
        return self._top / "mail" / "inbox"

    def messages(self) -> list[bytes]:
        """What has arrived, each as Postfix wrote it (with its own trace headers on top)."""
        new = self.maildir / "new"
        return [f.read_bytes() for f in sorted(new.iterdir())] if new.exists() else []

    def wait(self, count: int, *, seconds: float = 30) -> list[bytes]:
        """Wait until `count` messages have arrived."""
        wait_until(
            lambda: len(self.messages()) >= count,
            seconds=seconds,
            what=lambda: f"{count} messages (there are {len(self.messages())})\n{self._log()}",
        )
        return self.messages()

    def wait_for(self, found: Callable[[bytes], bool], *, seconds: float = 30) -> bytes:
        """Wait for the first message that `found` is true of."""
        wait_until(
            lambda: any(map(found, self.messages())),
            seconds=seconds,
            what=lambda: f"a message to arrive\n{self._log()}",
        )
        return next(filter(found, self.messages()))
