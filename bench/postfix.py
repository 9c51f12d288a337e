"""Postfix from Debian, tuned, as the yardstick; with OpenDKIM as a milter if asked."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from bench.far_end import FarEnd
from bench.processes import Usage, measure
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
Socket inet:{port}@127.0.0.1
InternalHosts 127.0.0.1
RequireSafeKeys no
UserID opendkim
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _lay_out(top: Path, sink: int, milter: int | None) -> int:
    top.chmod(0o755)
    for folder in ("etc", "queue", "data", "log"):
        (top / folder).mkdir(parents=True, exist_ok=True)
    owner = pwd.getpwnam("postfix")
    os.chown(top / "data", owner.pw_uid, owner.pw_gid)
    port = _free_port()
    line = f"smtpd_milters = inet:127.0.0.1:{milter}" if milter else ""
    (top / "etc/main.cf").write_text(_MAIN.format(top=top, sink=sink, milter=line))
    (top / "etc/master.cf").write_text(MASTER.format(port=port))
    return port


def _start_dkim(top: Path) -> tuple[subprocess.Popen[bytes], int]:
    subprocess.run(
        ["openssl", "genrsa", "-traditional", "-out", str(top / "key.pem"), "2048"],
        check=True,
        capture_output=True,
    )
    owner = pwd.getpwnam("opendkim")
    os.chown(top / "key.pem", owner.pw_uid, owner.pw_gid)
    port = _free_port()
    (top / "dkim.conf").write_text(_DKIM.format(top=top, port=port))
    process = subprocess.Popen(["opendkim", "-f", "-x", str(top / "dkim.conf")])
    _await_port(port)
    return process, port


def _await_port(port: int) -> None:
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"nothing listens on {port}")


def run(messages: int, *, signed: bool = False) -> dict[str, float]:
    """Accept and deliver `messages` of 2 KB: rates per second, CPU, peak memory."""
    if shutil.which("postfix") is None:
        raise SystemExit("Postfix is missing: apt-get install postfix")
    top = Path(tempfile.mkdtemp(prefix="bench-postfix-"))
    milter: subprocess.Popen[bytes] | None = None
    try:
        with FarEnd() as sink:
            milter, milter_port = _start_dkim(top) if signed else (None, None)
            port = _lay_out(top, sink.port, milter_port)
            postfix = ["postfix", "-c", str(top / "etc")]
            subprocess.run([*postfix, "start"], check=True, capture_output=True)
            _await_port(port)
            master = int((top / "queue/pid/master.pid").read_text())
            roots = [master, *([milter.pid] if milter else [])]
            before = sink.count
            with measure(roots) as usage:
                began = time.time()
                _submit(port, messages)
                accepted = time.time()
                ended = sink.wait(before + messages, 300)
            subprocess.run([*postfix, "abort"], check=False, capture_output=True)
            return _figures(messages, began, accepted, ended, usage)
    finally:
        if milter is not None:
            milter.terminate()
            milter.wait()
        shutil.rmtree(top, ignore_errors=True)


def _submit(port: int, messages: int) -> None:
    subprocess.run(
        [
            *("smtp-source", "-s", "16", "-l", "2048", "-m", str(messages)),
            *("-f", "bench@example.test", "-t", "user@dest.test", f"127.0.0.1:{port}"),
        ],
        check=True,
        capture_output=True,
        cwd="/",
    )


def _figures(
    messages: int, began: float, accepted: float, ended: float, usage: Usage
) -> dict[str, float]:
    return {
        "messages": messages,
        "accepted_per_s": messages / (accepted - began),
        "delivered_per_s": messages / (ended - began),
        "cpu_s_per_1000": usage.cpu_s / messages * 1000,
        "peak_mb": usage.peak_mb,
    }
