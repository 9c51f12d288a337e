"""Listening sockets: refusals that say why, and hand-over without a lost connection."""

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from everpost.net.listener import (
    Endpoint,
    ListenError,
    adopt,
    bind,
    bind_unix,
    hand_over,
    listen,
)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:8080", Endpoint("127.0.0.1", 8080)),
        ("localhost:0", Endpoint("localhost", 0)),
        ("[::1]:25", Endpoint("::1", 25)),
        ("[fe80::1%eth0]:25", Endpoint("fe80::1%eth0", 25)),
        (":2525", Endpoint("", 2525)),
        ("unix:/run/everpost/admin.sock", Endpoint(path="/run/everpost/admin.sock")),
    ],
)
def test_endpoint_is_read_and_written_the_same(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text) == endpoint
    assert str(endpoint) == text


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("mx.test", Endpoint("mx.test", 25)),
        ("[::1]", Endpoint("::1", 25)),
        ("::1", Endpoint("::1", 25)),
        ("mx.test:587", Endpoint("mx.test", 587)),
    ],
)
def test_default_port_serves_where_none_is_said(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text, port=25) == endpoint


@pytest.mark.parametrize(
    "text",
    ["", ":", "host", "host:", "host:x", "host:65536", "host:-1", "::1", "[::1]", "[::1", "a b:1",
     "host:1:2", "[host]:1", "unix:", "http://host:80", "host:1\n"],
)  # fmt: skip
def test_malformed_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|not|path"):
        Endpoint.parse(text)


def test_empty_text_is_no_endpoint_even_with_a_default_port() -> None:
    with pytest.raises(ValueError, match="port"):
        Endpoint.parse("", port=25)


def test_bound_socket_listens_at_once_and_is_not_inherited_by_chance() -> None:
    with bind("127.0.0.1", 0) as sock:
        assert not sock.getblocking()
        assert not sock.get_inheritable()
        with socket.create_connection(sock.getsockname(), timeout=5):
            pass


def test_second_listener_on_a_port_is_refused_by_name() -> None:
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{port}: another process"):
            bind("127.0.0.1", port)


def test_restart_does_not_wait_for_old_connections() -> None:
    first = bind("127.0.0.1", 0)
    address = first.getsockname()
    with socket.create_connection(address, timeout=5) as client:
        first.setblocking(True)
        served, _ = first.accept()
        served.close()  # the side that closes first is left in TIME_WAIT
        assert client.recv(1) == b""
    first.close()
    bind("127.0.0.1", address[1]).close()


def test_several_processes_may_share_a_port_on_request() -> None:
    with bind("127.0.0.1", 0, reuse_port=True) as first:
        bind("127.0.0.1", first.getsockname()[1], reuse_port=True).close()


def test_address_of_another_machine_is_refused_with_the_reason() -> None:
    with pytest.raises(ListenError, match="no such address on this machine"):
        bind("192.0.2.1", 0)


def test_host_that_is_no_host_is_refused() -> None:
    with pytest.raises(ListenError, match="unknown host"):
        bind("." * 70, 0)


def test_every_address_serves_ipv4_too() -> None:
    with (
        bind("", 0) as sock,
        socket.create_connection(("127.0.0.1", sock.getsockname()[1]), timeout=5),
    ):
        pass


def test_unix_socket_is_private_from_the_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with listen(Endpoint(path=str(path))):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(ListenError, match="another process listens there"):
            bind_unix(path)
    assert path.exists()  # its listener is dead
    with bind_unix(path, mode=0o666):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666


def test_unix_socket_never_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ListenError, match="no socket"):
        bind_unix(path)
    assert path.read_text() == "data"


def test_unix_socket_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="No such file"):
        bind_unix(tmp_path / "none" / "admin.sock")


CHILD = """
import sys
from everpost.net.listener import adopt
sock = adopt(int(sys.argv[1]))
sock.setblocking(True)
connection, _ = sock.accept()
connection.sendall(b"child")
connection.close()
"""


def test_connection_made_before_the_child_started_is_served_by_it() -> None:
    with bind("127.0.0.1", 0) as sock:
        fd = hand_over(sock)
        with socket.create_connection(sock.getsockname(), timeout=20) as client:
            child = subprocess.run(
                [sys.executable, "-c", CHILD, str(fd)], pass_fds=[fd], timeout=20
            )
            assert child.returncode == 0
            assert client.recv(5) == b"child"


def test_adopted_socket_is_not_handed_further_by_chance() -> None:
    with bind("127.0.0.1", 0) as sock:
        number = os.dup(hand_over(sock))
        with adopt(number) as adopted:
            assert not adopted.get_inheritable()
            assert not adopted.getblocking()
            assert adopted.getsockname() == sock.getsockname()


def test_number_that_is_no_listening_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ListenError, match="is no socket"):
        adopt(987)
    with (tmp_path / "file").open("w") as file, pytest.raises(ListenError, match="is no socket"):
        adopt(file.fileno())
    with socket.socket() as sock:
        with pytest.raises(ListenError, match="does not listen"):
            adopt(sock.fileno())
        assert sock.fileno() >= 0
        sock.bind(("127.0.0.1", 0))  # still usable: adopting did not close it


def test_concurrent_connections_wait_in_the_queue() -> None:
    with bind("127.0.0.1", 0) as sock:
        address = sock.getsockname()
        clients: list[socket.socket] = []
        threads = [
            threading.Thread(target=lambda: clients.append(socket.create_connection(address, 5)))
            for _ in range(50)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(clients) == 50
        for client in clients:
            client.close()
