"""A Dovecot of the test's own: a Maildir over IMAP, on a loopback port."""

import imaplib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.support.waiting import wait_until

__all__ = ["PASSWORD", "USER", "Dovecot"]

USER, PASSWORD = "canary", 'a "secret" that\\nobody guesses'
_PROGRAM = "/usr/sbin/dovecot"
_CONFIG = """\
base_dir = {top}/run
state_dir = {top}/state
log_path = {top}/log
protocols = imap
listen = 127.0.0.1
ssl = {ssl}
{certificate}
disable_plaintext_auth = no
mail_location = maildir:{maildir}
first_valid_uid = 1
default_login_user = dovenull
default_internal_user = dovecot
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {top}/users
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={top}/home
}}
service imap-login {{
  inet_listener imap {{
    port = {clear}
  }}
  inet_listener imaps {{
    port = {tls}
    ssl = yes
  }}
}}
"""


class Dovecot:
    """`with Dovecot(maildir) as box: … box.url`. Needs root, as Dovecot does; the Maildir is
    nobody's. `certificate` (one file with the key) makes it speak TLS from the first byte."""

    def __init__(self, maildir: Path, *, certificate: Path | None = None) -> None:
        if not Path(_PROGRAM).exists():
            raise AssertionError("Dovecot is missing: install the Debian package dovecot-imapd")
        if os.geteuid() != 0:
            raise AssertionError("Dovecot starts only as root: run the tests as root")
        self._top = Path(tempfile.mkdtemp(prefix="everpost-test-dovecot-"))
        self._maildir = maildir
        self._certificate = certificate
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"imap{'s' if self._certificate else ''}://127.0.0.1:{self.port}/INBOX"

    def __enter__(self) -> "Dovecot":
        self._lay_out()
        self._process = subprocess.Popen(
            [_PROGRAM, "-F", "-c", str(self._top / "dovecot.conf")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(self._answers, seconds=20, what=lambda: f"Dovecot to answer\n{self._log()}")
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
        shutil.rmtree(self._top, ignore_errors=True)

    def _lay_out(self) -> None:
        self._top.chmod(0o755)
        user = pwd.getpwnam("nobody")
        home = self._top / "home"
        home.mkdir()
        os.chown(home, user.pw_uid, user.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        secret = self._top / "users"
        secret.write_text(f"{USER}:{PASSWORD}::::::\n")
        shutil.chown(secret, "dovecot", "dovecot")
        secret.chmod(0o600)
        certificate = ""
        if self._certificate:
            certificate = f"ssl_cert = <{self._certificate}\nssl_key = <{self._certificate}"
        (self._top / "dovecot.conf").write_text(
            _CONFIG.format(
                top=self._top,
                maildir=self._maildir,
                uid=user.pw_uid,
                gid=user.pw_gid,
                ssl="required" if self._certificate else "no",
                certificate=certificate,
                clear=0 if self._certificate else self.port,
                tls=self.port if self._certificate else 0,
            )
        )

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                return bool(self._certificate) or connection.recv(512).startswith(b"* OK")
        except OSError:
            return False

    def _log(self) -> str:
        log = self._top / "log"
        return log.read_text() if log.exists() else ""

    def subjects(self) -> list[str]:
        """Of what is in the mailbox and not marked as deleted, by a client of its own."""
        with imaplib.IMAP4("127.0.0.1", self.port, timeout=10) as account:
            account.login(USER, PASSWORD)
            account.select("INBOX", readonly=True)
            _, (numbers,) = account.search(None, "UNDELETED")
            found = []
            for number in numbers.split():
                _, data = account.fetch(number, "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
                assert isinstance(data[0], tuple)
                found.append(data[0][1].decode().removeprefix("Subject:").strip())
            return found
