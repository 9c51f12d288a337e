"""DNS through a validating resolver (unbound) before a real server (knot): the AD bit comes where
DNSSEC holds, and what it does not hold for is no answer at all (F66)."""

import asyncio
import shutil
import socket
import subprocess
from collections.abc import Iterator

import pytest

from everpost.net.resolver import Absent, Answer, Found, Resolver, Unresolved
from tests.support.knot import Knot
from tests.support.waiting import wait_until

RECORDS = """
@ MX 10 mail
mail A 192.0.2.1
_25._tcp.mail TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
"""

_CONFIG = """
server:
    interface: 127.0.0.1@{port}
    username: ""
    chroot: ""
    directory: "{folder}"
    pidfile: ""
    use-syslog: no
    verbosity: 0
    do-not-query-localhost: no
    num-threads: 1
    module-config: "validator iterator"
    trust-anchor-file: "{folder}/anchors"
    local-zone: "test." nodefault
    domain-insecure: "plain.test"
    domain-insecure: "dead.test"
remote-control:
    control-enable: no
stub-zone:
    name: "signed.test"
    stub-addr: 127.0.0.1@{knot}
stub-zone:
    name: "forged.test"
    stub-addr: 127.0.0.1@{knot}
stub-zone:
    name: "plain.test"
    stub-addr: 127.0.0.1@{knot}
stub-zone:
    name: "dead.test"
    stub-addr: 127.0.0.1@{dead}
"""


@pytest.fixture(scope="module")
def unbound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Its port. It trusts signed.test by its key and forged.test by another one."""
    program = shutil.which("unbound", path="/usr/sbin:/usr/bin")
    assert program, "unbound is missing: apt-get install unbound"
    folder = tmp_path_factory.mktemp("unbound")
    zones = dict.fromkeys(("signed.test", "forged.test", "plain.test"), RECORDS)
    with (
        Knot(tmp_path_factory.mktemp("knot"), zones, signed=("signed.test", "forged.test")) as knot,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as dead,
    ):
        dead.bind(("127.0.0.1", 0))  # and never answers
        anchors = knot.keys("signed.test")
        (folder / "anchors").write_text(anchors + anchors.replace("signed.test", "forged.test"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        config = _CONFIG.format(
            port=port, folder=folder, knot=knot.port, dead=dead.getsockname()[1]
        )
        (folder / "unbound.conf").write_text(config)
        with subprocess.Popen([program, "-d", "-c", str(folder / "unbound.conf")]) as process:
            try:
                wait_until(lambda: _answers(port), seconds=20, what="unbound to answer")
                yield port
            finally:
                process.terminate()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _look(port: int, name: str, rdtype: str, timeout: float = 5.0) -> Answer:
    return asyncio.run(Resolver(["127.0.0.1"], port, timeout).lookup(name, rdtype))


def test_signed_answer_is_not_told_from_an_unsigned_one(unbound: int) -> None:
    signed = _look(unbound, "signed.test", "MX")
    assert isinstance(signed, Found)
    assert (signed.records, signed.authenticated) == (("10 mail.signed.test.",), True)
    plain = _look(unbound, "plain.test", "MX")
    assert isinstance(plain, Found)
    assert (plain.records, plain.authenticated) == (("10 mail.plain.test.",), False)


def test_keys_of_a_mail_host_are_taken_for_unsigned(unbound: int) -> None:
    answer = _look(unbound, "_25._tcp.mail.signed.test", "TLSA")
    assert isinstance(answer, Found)
    assert answer.authenticated
    assert answer.records[0].startswith("3 1 1 0123456789abcdef")


def test_signed_denial_is_not_told_from_an_unsigned_one(unbound: int) -> None:
    nobody = _look(unbound, "none.signed.test", "A")
    nothing = _look(unbound, "mail.signed.test", "AAAA")
    assert isinstance(nobody, Absent)
    assert isinstance(nothing, Absent)
    assert (nobody.kind, nothing.kind) == ("nxdomain", "nodata")
    assert (nobody.authenticated, nothing.authenticated) == (True, True)
    plain = _look(unbound, "none.plain.test", "A")
    assert isinstance(plain, Absent)
    assert not plain.authenticated


def test_forged_answer_is_believed_or_taken_for_a_missing_name(unbound: int) -> None:
    answer = _look(unbound, "forged.test", "MX")
    assert isinstance(answer, Unresolved)
    assert answer.answered


def test_dead_name_servers_of_a_domain_make_it_a_missing_name(unbound: int) -> None:
    answer = _look(unbound, "dead.test", "MX", timeout=0.5)
    assert isinstance(answer, Unresolved)
