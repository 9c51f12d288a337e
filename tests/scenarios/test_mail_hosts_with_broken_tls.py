"""F65: a mail host offers STARTTLS and breaks it, shows an expired certificate, or knows nothing
newer than TLS 1.0. Each policy gets what it says: mail in clear only where that is allowed.

Invariants: S16, S17, S18.
"""

import datetime
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import make
from tests.support.hosting import hosted
from tests.support.house import House
from tests.support.mail_hosts import delivering, mx, theirs
from tests.support.stage import attempts_of, check_record, over, relays
from tests.support.tiny_smtp import EXTENSIONS, Close, Misfortune, ScriptedServer, StartTls

OFFERING = (*EXTENSIONS, "STARTTLS")
ZONE = """
@ MX 10 mail
mail A 127.0.0.1
"""


@dataclass
class Stage:
    house: House
    servers: dict[str, ssl.SSLContext]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("house")
    (folder / "good").mkdir()
    (folder / "expired").mkdir()
    good = make(folder / "good", "mail.there.test")
    past = datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC)
    expired = make(folder / "expired", "mail.there.test", until=past)
    trusted = folder / "trusted.pem"
    trusted.write_text(Path(good.ca_file).read_text() + Path(expired.ca_file).read_text())
    old = make(folder / "good", "mail.there.test").server
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1
    old.set_ciphers("ALL:@SECLEVEL=0")
    settings = {"SSL_CERT_FILE": str(trusted)}
    with delivering(folder, {"there.test": ZONE}, settings) as (house, _):
        yield Stage(house, {"good": good.server, "expired": expired.server, "old": old})


def _send(house: House, far: ScriptedServer, policy: str) -> dict[str, Any]:
    """The attempt, after its end."""
    with relays(house, mx=mx(far.port, tls=policy)):
        id_ = house.send(to="you@there.test")
        house.wait_status(id_, "delivered", "deferred")
        (attempt,) = attempts_of(house, id_)
        check_record(house, id_)
        if not far.mail:
            over(house, id_)
    return attempt


@pytest.mark.parametrize("policy", ["opportunistic", "require", "verify"])
def test_sound_tls_is_not_used(stage: Stage, policy: str) -> None:
    script = {"STARTTLS": StartTls(stage.servers["good"])}
    with hosted(ScriptedServer(script, extensions=OFFERING)) as far:
        attempt = _send(stage.house, far, policy)
        assert attempt["outcome"]["type"] == "delivered"
        assert attempt["tls"]["version"].startswith("TLSv1.")
        assert attempt["tls"]["verified"] is (policy == "verify")


@pytest.mark.parametrize("policy", ["opportunistic", "require", "verify"])
@pytest.mark.parametrize(
    "instead",
    [Close(), b"\x15\x03\x01\x00\x02\x02\x28", b"what?\r\n"],
    ids=["cut", "alert", "text"],
)
def test_starttls_that_breaks_sends_mail_in_clear_or_never(
    stage: Stage, policy: str, instead: bytes | Misfortune
) -> None:
    script = {"STARTTLS": StartTls(None, instead=instead)}
    with hosted(ScriptedServer(script, extensions=OFFERING)) as far:
        attempt = _send(stage.house, far, policy)
        assert attempt["tls"] is None
        if policy == "opportunistic":
            assert attempt["outcome"]["type"] == "delivered"
        else:
            theirs(attempt["outcome"], phase="secure")
            assert far.mail == []
            assert not any(line.startswith("MAIL") for line in far.log)


@pytest.mark.parametrize("policy", ["opportunistic", "require", "verify"])
def test_expired_certificate_is_trusted_or_stops_what_does_not_ask_for_one(
    stage: Stage, policy: str
) -> None:
    script = {"STARTTLS": StartTls(stage.servers["expired"])}
    with hosted(ScriptedServer(script, extensions=OFFERING)) as far:
        attempt = _send(stage.house, far, policy)
        if policy == "verify":
            theirs(attempt["outcome"], phase="secure")
            assert "expired" in attempt["outcome"]["reason"]
            assert far.mail == []
        else:
            assert attempt["outcome"]["type"] == "delivered"
            assert attempt["tls"]["verified"] is False


@pytest.mark.parametrize("policy", ["opportunistic", "require", "verify"])
def test_host_with_nothing_but_tls_1_0_gets_it(stage: Stage, policy: str) -> None:
    script = {"STARTTLS": StartTls(stage.servers["old"])}
    with hosted(ScriptedServer(script, extensions=OFFERING)) as far:
        attempt = _send(stage.house, far, policy)
        assert attempt["tls"] is None
        if policy == "opportunistic":
            assert attempt["outcome"]["type"] == "delivered"
        else:
            theirs(attempt["outcome"], phase="secure")
            assert far.mail == []


@pytest.mark.parametrize("policy", ["opportunistic", "require", "verify"])
def test_starttls_that_was_stripped_goes_unnoticed(stage: Stage, policy: str) -> None:
    """S16: somebody in between takes the offer away."""
    with hosted(ScriptedServer(extensions=EXTENSIONS)) as far:
        attempt = _send(stage.house, far, policy)
        assert attempt["tls"] is None
        if policy == "opportunistic":
            assert attempt["outcome"]["type"] == "delivered"
        else:
            theirs(attempt["outcome"], phase="secure")
            assert far.mail == []
