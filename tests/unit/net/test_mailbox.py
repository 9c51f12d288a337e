"""A mailbox over IMAP, against a real Dovecot: what is looked for is found and removed, what is not
ours stays, and what goes wrong is said in words without the password."""

import asyncio
import os
import pwd
import shutil
import socket
import tempfile
import threading
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from everpost.net.mailbox import Login, Mailbox, MailboxError, take
from tests.support.certificates import make
from tests.support.dovecot import PASSWORD, USER, Dovecot

HEADER = "X-Canary-Token"
LOGIN = Login(USER, PASSWORD)


class Maildir:
    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="everpost-test-maildir-"))
        for name in ("cur", "new", "tmp"):
            (self.path / name).mkdir()
        user = pwd.getpwnam("nobody")
        for path in (self.path, *self.path.iterdir()):
            os.chown(path, user.pw_uid, user.pw_gid)

    def put(self, subject: str, token: str | None = None) -> None:
        lines = [f"Subject: {subject}", *([f"{HEADER}: {token}"] if token else []), "", "Hello", ""]
        file = self.path / "new" / f"{len(list((self.path / 'new').iterdir()))}.{subject}.test"
        file.write_bytes("\n".join(lines).encode())
        user = pwd.getpwnam("nobody")
        os.chown(file, user.pw_uid, user.pw_gid)


@pytest.fixture
def maildir() -> Iterator[Maildir]:
    made = Maildir()
    yield made
    shutil.rmtree(made.path)


def _take(url: str, wanted: Collection[str], login: Login = LOGIN) -> frozenset[str]:
    return asyncio.run(take(Mailbox.from_url(url), login, header=HEADER, wanted=wanted, within=5))


def test_what_is_looked_for_is_taken_and_the_rest_stays(maildir: Maildir) -> None:
    maildir.put("ours", "t1")
    maildir.put("anothers", "t9")
    maildir.put("private")
    with Dovecot(maildir.path) as box:
        assert _take(box.url, ["t1", "t2"]) == {"t1"}
        assert sorted(box.subjects()) == ["anothers", "private"]
        assert _take(box.url, ["t1", "t2"]) == frozenset()


def test_an_empty_mailbox_holds_nothing(maildir: Maildir) -> None:
    with Dovecot(maildir.path) as box:
        assert _take(box.url, ["t1"]) == frozenset()


def test_a_login_that_is_refused_is_said_without_the_password(maildir: Maildir) -> None:
    with Dovecot(maildir.path) as box, pytest.raises(MailboxError) as refused:
        _take(box.url, ["t1"], Login(USER, "wrong"))
    assert "wrong" not in str(refused.value)
    assert "wrong" not in repr(Login(USER, "wrong"))


def test_a_folder_that_is_not_there(maildir: Maildir) -> None:
    with Dovecot(maildir.path) as box, pytest.raises(MailboxError, match="doesn't exist"):
        _take(box.url.replace("INBOX", "Elsewhere"), ["t1"])


def test_through_tls_only_with_a_certificate_that_is_trusted(
    maildir: Maildir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maildir.put("ours", "t1")
    authority = make(tmp_path, "127.0.0.1").ca_file
    with Dovecot(maildir.path, certificate=tmp_path / "server.pem") as box:
        with pytest.raises(MailboxError, match="certificate"):
            _take(box.url, ["t1"])
        monkeypatch.setenv("SSL_CERT_FILE", authority)
        assert _take(box.url, ["t1"]) == {"t1"}


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(MailboxError, match="refused"):
        _take(f"imap://127.0.0.1:{port}", ["t1"])


@pytest.mark.parametrize("says", [b"", b"* OK hello\r\n", b"junk\r\n", b"* BYE no\r\n"])
def test_a_server_that_hangs_up(says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(says)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(MailboxError):
            _take(f"imap://127.0.0.1:{listener.getsockname()[1]}", ["t1"])
        thread.join(10)


@pytest.mark.parametrize(
    ("url", "mailbox"),
    [
        ("imaps://mail.test/INBOX", Mailbox("mail.test", 993, True, "INBOX")),
        ("imaps://mail.test:1993/", Mailbox("mail.test", 1993, True, "INBOX")),
        ("imap://localhost/Canary%20birds", Mailbox("localhost", 143, False, "Canary birds")),
        ("imap://[::1]:1143/a/b", Mailbox("::1", 1143, False, "a/b")),
    ],
)
def test_addresses_of_mailboxes(url: str, mailbox: Mailbox) -> None:
    assert Mailbox.from_url(url) == mailbox


@pytest.mark.parametrize(
    "url",
    [
        "imap://mail.test/INBOX",
        "imap://192.0.2.1/INBOX",
        "https://mail.test/",
        "imaps:///INBOX",
        "imaps://me:secret@mail.test/INBOX",
        "imaps://mail.test/INBOX?x=1",
        "imaps://mail.test/%0d%0aA1%20DELETE",
        "imaps://mail.test/caf%C3%A9",
        "imaps://mail.test:99999/",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  the words are for people
        Mailbox.from_url(url)
