"""Postfix from Debian, tuned, as the yardstick; with OpenDKIM as a milter if asked."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.far_end import FarEnd
from bench.figures import Figures, Work
from bench.processes import await_port, end, finish, free_port, tree
from bench.smtp_load import drive
from tests.support.postfix import MASTER

__all__ = ["run"]

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
myhostname = bench.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
smtpd_relay_restrictions = permit_mynetworks, reject
relayhost = [127.0.0.1]:{sink}
in_flow_delay = 0s
default_process_limit = 200
smtpd_client_connection_count_limit = 0
default_destination_concurrency_limit = 20
initial_destination_concurrency = 20
smtp_connection_cache_destinations = [127.0.0.1]:{sink}
qmgr_message_active_limit = 50000
disable_dns_lookups = yes
smtp_host_lookup = native
smtpd_peername_lookup = no
{milter}
"""

_DKIM = """\
Syslog no
UMask 000
Mode s
Domain example.test
Selector bench
KeyFile {top}/key.pem
Canonicalization relaxed/relaxed
SignatureAlgorithm rsa-sha256
Socket local:{top}/milter/dkim
InternalHosts 127.0.0.1
RequireSafeKeys no
UserID opendkim
"""


def _lay_out(top: Path, sink: int, milter: Path | None) -> int:
    for folder in ("etc", "queue", "data", "log"):
        (top / folder).mkdir(parents=True, exist_ok=True)
    owner = pwd.getpwnam("postfix")
    os.chown(top / "data", owner.pw_uid, owner.pw_gid)
    port = free_port()
    line = f"smtpd_milters = unix:{milter}" if milter else ""
    (top / "etc/main.cf").write_text(_MAIN.format(top=top, sink=sink, milter=line))
    (top / "etc/master.cf").write_text(MASTER.format(port=port))
    return port


@contextlib.contextmanager
def _dkim(top: Path) -> Iterator[tuple[int, Path]]:
    """OpenDKIM with a key of its own: its process id and its socket.

    A Unix socket, as in Debian's own opendkim.conf: faster here than TCP.
    """
    key, folder = top / "key.pem", top / "milter"
    finish(["openssl", "genrsa", "-traditional", "-out", str(key), "2048"], seconds=60)
    folder.mkdir()
    owner = pwd.getpwnam("opendkim")
    for path in (key, folder):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    (top / "dkim.conf").write_text(_DKIM.format(top=top))
    process = subprocess.Popen(["opendkim", "-f", "-x", str(top / "dkim.conf")])
    try:
        deadline = time.monotonic() + 20
        while not (folder / "dkim").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("OpenDKIM opened no socket within 20 s")
            time.sleep(0.02)
        yield process.pid, folder / "dkim"
    finally:
        end(process)


@contextlib.contextmanager
def _postfix(top: Path, port: int) -> Iterator[int]:
    """Postfix with the configuration in `top`/etc: the process id of its master."""
    postfix = ["postfix", "-c", str(top / "etc")]
    subprocess.run([*postfix, "start"], check=True, capture_output=True, timeout=60)
    master = int((top / "queue/pid/master.pid").read_text())
    try:
        await_port(port)
        yield master
    finally:
        subprocess.run([*postfix, "abort"], check=False, capture_output=True, timeout=60)
        deadline = time.monotonic() + 20
        while tree([master]) and time.monotonic() < deadline:
            time.sleep(0.05)


def run(work: Work) -> Figures:
    """Accept and deliver what `work` says; one destination, signed by OpenDKIM if not unsigned."""
    for program in ("postfix", "smtp-source", *(["opendkim"] if work.signing == "rsa" else [])):
        if shutil.which(program) is None:
            raise RuntimeError(f"{program} is missing: apt-get install postfix opendkim")
    if os.geteuid() != 0:
        raise RuntimeError("Postfix starts as root only")
    top = Path(tempfile.mkdtemp(prefix="bench-postfix-"))
    top.chmod(0o755)
    try:
        with FarEnd() as sink, contextlib.ExitStack() as stack:
            roots: list[int] = []
            milter: Path | None = None
            if work.signing == "rsa":
                process, milter = stack.enter_context(_dkim(top))
                roots.append(process)
            port = _lay_out(top, sink.port, milter)
            roots.append(stack.enter_context(_postfix(top, port)))
            return drive(work, port=port, roots=roots, sink=sink)
    finally:
        shutil.rmtree(top, ignore_errors=True)
