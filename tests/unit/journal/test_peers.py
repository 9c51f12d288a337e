"""Peers on real sockets: the door of one, the lines of another; strangers, liars, and peers that
hang or come late."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from everpost.api import HttpLimits, HttpServer
from everpost.journal import PeerDoor, Peers, part, signing
from everpost.journal.copying import _encode
from everpost.journal.entry import encode
from everpost.model.message import Assurance
from everpost.net.listener import Endpoint, listen
from everpost.store.cluster import NodeRow
from everpost.store.interface import Accepted
from everpost.store.journal_rows import NewJournalRow
from tests.conformance.making import START, message
from tests.support.journalling import Desk, desk, entry

SECRET = b"s" * 32
WITHIN_S = 0.6


@asynccontextmanager
async def door(node: Desk, *, secret: bytes = SECRET, name: str = "b") -> AsyncIterator[int]:
    """The peer's listener; its port."""
    sock = listen(Endpoint.parse("127.0.0.1:0"))
    port: int = sock.getsockname()[1]
    app = PeerDoor(journal=node.journal, secret=secret, name=name, clock=node.clock)
    server, ready = HttpServer(HttpLimits()), asyncio.Event()
    serving = asyncio.ensure_future(server.serve(app, [sock], ready=ready))
    await ready.wait()
    try:
        yield port
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


def _node(name: str, port: int) -> NodeRow:
    return NodeRow(name, "here", "1", f"http://127.0.0.1:{port}", ("api",), START)


def _peers(node: Desk, *ports: int, name: str = "a") -> Peers:
    rows = {f"n{n}": _node(f"n{n}", port) for n, port in enumerate(ports)}
    return Peers(lambda: rows, secret=SECRET, name=name, clock=node.clock, within_s=WITHIN_S)


class Odd:
    """A peer that takes connections and does not do what it should: answers with `answer`, or says
    nothing."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.asked = asyncio.Event()
        self.port = 0

    async def __aenter__(self) -> "Odd":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65_536):
                self.asked.set()
                if self.answer is not None:
                    writer.write(self.answer)
        finally:
            writer.close()


def test_a_peer_keeps_a_copy(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node, door(node) as port:
            peers = _peers(node, port)
            bodies = [encode(entry(origin="a")) for _ in range(20)]
            kept = await asyncio.gather(*(peers.copy(body) for body in bodies))
            assert kept == [True] * 20
            assert node.journal.waiting == 20
            assert await peers.copy(bodies[0])  # again: it has it
            assert node.journal.waiting == 20
            peers.close()

    asyncio.run(scene())


def test_a_node_ends_while_the_database_is_away(database: Path) -> None:
    """What only it has goes to a peer before it goes, and from there into the database."""

    async def scene() -> None:
        async with (
            desk(database) as ending,
            desk(database, journal=database.with_name("peer.db")) as peer,
            door(peer) as port,
        ):
            ending.switch.mode = "down"
            sent = [message() for _ in range(250)]
            for each in sent:
                answer = await ending.accepting.accept(1, [each])
                assert answer == Accepted(Assurance.JOURNAL)
            peers = _peers(ending, port)
            await part(ending.journal, peers, within_s=5)
            assert ending.journal.alone() == []
            peers.close()
            await peer.drain.round()
            assert (await peer.store.facts()).accepted == 250
            assert await peer.shown(sent[0].id) == "journal+peer"

    asyncio.run(scene())


def test_a_node_ends_alone(database: Path) -> None:
    """It does not wait for who is not there, and keeps what it has."""

    async def scene() -> None:
        async with desk(database) as node, Odd(None) as silent:
            node.switch.mode = "down"
            for _ in range(250):
                await node.accepting.accept(1, [message()])
            peers = _peers(node, silent.port)
            await part(node.journal, peers, within_s=5)
            assert len(node.journal.alone()) == node.journal.waiting == 250
            peers.close()

    asyncio.run(scene())


def test_there_is_no_peer(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node:
            assert not await _peers(node).copy(b"x")

    asyncio.run(scene())


def test_the_first_peer_is_gone(database: Path) -> None:
    async def scene() -> None:
        gone = listen(Endpoint.parse("127.0.0.1:0"))
        absent: int = gone.getsockname()[1]
        gone.close()
        async with desk(database) as node, door(node) as port:
            peers = _peers(node, absent, port)
            for _ in range(4):
                assert await peers.copy(encode(entry()))
            peers.close()

    asyncio.run(scene())


def test_the_first_peer_hangs(database: Path) -> None:
    """The next one is asked as well before the time is over, and first from then on."""

    async def scene() -> None:
        async with desk(database) as node, door(node) as port, Odd(None) as silent:
            peers = _peers(node, silent.port, port)
            for _ in range(4):
                assert await peers.copy(encode(entry()))
            assert silent.asked.is_set()
            peers.close()

    asyncio.run(scene())


def test_every_peer_hangs(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node, Odd(None) as silent:
            peers = _peers(node, silent.port)
            began = node.clock.monotonic()
            assert not await peers.copy(encode(entry()))
            assert node.clock.monotonic() - began < 3 * WITHIN_S
            peers.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 66\r\n\r\n" + b"0" * 64 + b" b",
        b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
        b"220 mail.example ESMTP\r\n",
    ],
)
def test_a_peer_that_lies(database: Path, answer: bytes) -> None:
    """Who has not got the secret has not got a copy, whatever it says."""

    async def scene() -> None:
        async with desk(database) as node, Odd(answer) as liar:
            peers = _peers(node, liar.port)
            assert not await peers.copy(encode(entry()))
            peers.close()

    asyncio.run(scene())


def test_a_peer_that_answers_late(database: Path) -> None:
    """Nobody waits for it, and it has the copy all the same; until it has answered, and for a
    while after, others are asked first."""

    async def scene() -> None:
        async with desk(database) as node, door(node) as port:
            plain, gate = node.file.write, asyncio.Event()

            async def write(rows: Sequence[NewJournalRow]) -> Sequence[int]:
                await gate.wait()
                return await plain(rows)

            node.file.write = write  # type: ignore[method-assign]
            peers = _peers(node, port)
            theirs = entry(origin="a")
            assert not await peers.copy(encode(theirs))
            assert peers._lines["n0"].is_sick(WITHIN_S)
            gate.set()
            while not node.journal.waiting:
                await asyncio.sleep(0)
            assert node.journal.find(1, theirs.first) is not None
            assert await peers.copy(encode(entry(origin="a")))
            peers.close()

    asyncio.run(scene())


def test_an_address_that_is_our_own(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node, door(node, name="a") as port:
            peers = _peers(node, port, name="a")
            assert not await peers.copy(encode(entry()))
            peers.close()

    asyncio.run(scene())


def test_a_peer_whose_journal_is_full(database: Path) -> None:
    async def scene() -> None:
        async with desk(database) as node, door(node) as port:
            node.low = True
            peers = _peers(node, port)
            assert not await peers.copy(encode(entry()))
            node.low = False
            assert await peers.copy(encode(entry()))
            peers.close()

    asyncio.run(scene())


def test_a_peer_that_starts_again(database: Path) -> None:
    """A kept connection that has ended is made anew with the next copy."""

    async def scene() -> None:
        async with desk(database) as node:
            rows: dict[str, NodeRow] = {}
            peers = Peers(
                lambda: rows, secret=SECRET, name="a", clock=node.clock, within_s=WITHIN_S
            )
            for _ in range(2):
                async with door(node) as port:
                    rows["b"] = _node("b", port)
                    assert await peers.copy(encode(entry()))
            peers.close()

    asyncio.run(scene())


# --- strangers ------------------------------------------------------------------------------------


def _signed(body: bytes, *, at: int = START, secret: bytes = SECRET) -> dict[bytes, bytes]:
    digest = hashlib.sha256(body).hexdigest().encode()
    time = b"%d" % at
    return {
        b"content-length": b"%d" % len(body),
        signing.TIME: time,
        signing.DIGEST: digest,
        signing.SIGNATURE: signing.sign(secret, time, digest),
    }


async def _ask(
    port: int,
    headers: dict[bytes, bytes],
    body: bytes = b"",
    *,
    method: bytes = b"PUT",
    path: bytes = signing.PATH,
) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [method + b" " + path + b" HTTP/1.1", b"host: peer"]
    lines += [name + b": " + value for name, value in headers.items()]
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


GOOD = _encode([encode(entry())])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (_signed(GOOD), 200),
        ({}, 411),
        ({b"content-length": b"%d" % len(GOOD)}, 403),
        (_signed(GOOD, secret=b"x" * 32), 403),
        (_signed(GOOD, at=START - 61_000), 403),
        (_signed(GOOD, at=START + 61_000), 403),
        (_signed(b"another body") | {b"content-length": b"%d" % len(GOOD)}, 403),
        (_signed(GOOD) | {signing.TIME: b"now"}, 403),
        (_signed(GOOD) | {signing.SIGNATURE: b"\xff" * 64}, 403),
        (_signed(GOOD) | {signing.SIGNATURE: b""}, 403),
    ],
)
def test_a_stranger(database: Path, headers: dict[bytes, bytes], status: int) -> None:
    async def scene() -> None:
        async with desk(database) as node, door(node) as port:
            wanted = 403 if status == 411 else status
            assert await _ask(port, headers, GOOD) == wanted
            assert node.journal.waiting == (status == 200)

    asyncio.run(scene())


def test_a_length_beyond_all_bounds(database: Path) -> None:
    """Refused before a byte of it is read, also with the right signature."""

    async def scene() -> None:
        async with desk(database) as node, door(node) as port:
            for length in (b"999999999", b"9" * 15):
                headers = _signed(GOOD) | {b"content-length": length}
                assert await _ask(port, headers) == 413
            chunked = _signed(GOOD)
            del chunked[b"content-length"]
            chunked[b"transfer-encoding"] = b"chunked"
            assert await _ask(port, chunked, b"0\r\n\r\n") == 411

    asyncio.run(scene())


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", _encode([b"no entry"]), _encode([_encode({})]), b"\xdd\xff\xff\xff\xff"]
)
def test_a_fellow_that_talks_nonsense(database: Path, body: bytes) -> None:
    async def scene() -> None:
        async with desk(database) as node, door(node) as port:
            assert await _ask(port, _signed(body), body) == 422
            assert node.journal.waiting == 0

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [(b"GET", signing.PATH, 405), (b"PUT", b"/", 404), (b"POST", b"/emails", 404)],
)
def test_there_is_nothing_else(database: Path, method: bytes, path: bytes, status: int) -> None:
    async def scene() -> None:
        async with desk(database) as node, door(node) as port:
            assert await _ask(port, _signed(b""), method=method, path=path) == status

    asyncio.run(scene())


def test_an_entry_of_a_later_release(database: Path) -> None:
    """Fields that this release does not know are passed over."""

    async def scene() -> None:
        async with desk(database) as node, door(node) as port:
            later = msgspec.msgpack.decode(encode(entry()))
            later["something"] = "new"
            later["messages"][0]["colour"] = "red"
            body = _encode([_encode(later)])
            assert await _ask(port, _signed(body), body) == 200
            assert node.journal.waiting == 1

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("text", "mode", "wrong"),
    [
        (b"s" * 32 + b"\n", 0o600, None),
        (b"s" * 31, 0o600, "fewer than 32"),
        (b"s" * 32, 0o640, "mode 0600"),
        (None, 0o600, "No such file"),
    ],
)
def test_the_file_with_the_secret(
    tmp_path: Path, text: bytes | None, mode: int, wrong: str | None
) -> None:
    path = tmp_path / "secret"
    if text is not None:
        path.write_bytes(text)
        path.chmod(mode)
    if wrong is None:
        assert signing.read_secret(path) == b"s" * 32
    else:
        with pytest.raises(signing.SecretError, match=wrong):
            signing.read_secret(path)
