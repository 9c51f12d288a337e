"""Listening sockets: where, how, and how they pass from the supervisor to its children.

A parent binds, marks the socket for its child (`hand_over`) and starts it with that number; the
child takes it up (`adopt`). Connections wait in the kernel's queue meanwhile, so none is lost when
a child restarts.
"""

import contextlib
import errno
import os
import re
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Endpoint",
    "ListenError",
    "adopt",
    "bind",
    "bind_unix",
    "close_empty",
    "hand_over",
    "listen",
]

_BACKLOG = 1024
"""Connections that the kernel keeps for us; it cuts this to net.core.somaxconn."""


class ListenError(Exception):
    """The address can't be listened on. The message says which one, why, and what may help."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen: `host` and `port`, or the `path` of a Unix socket.

    Port 0 lets the kernel choose. An empty host is every address of both families.
    """

    host: str = ""
    port: int = 0
    path: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, *, port: int | None = None) -> "Endpoint":
        """Read `HOST:PORT`, `[V6]:PORT`, `:PORT` or `unix:/PATH`; with a default `port` also a bare
        `HOST`, `[V6]` or V6. Raises ValueError saying what was expected."""
        if text.startswith("unix:"):
            if text == "unix:":
                raise ValueError("unix: needs a path")
            return cls(path=text[5:])
        found = _ENDPOINT.fullmatch(text)
        if found is None:
            if port is not None and re.fullmatch(r"[0-9A-Fa-f:.]+(%\w+)?", text):
                return cls(text, port)  # a bare IPv6 address
            raise ValueError(f"{text!r} is not HOST:PORT, [IPV6]:PORT or unix:/PATH")
        host = found["v6"] or found["host"] or ""
        if found["port"] is None:
            if port is None or not text:
                raise ValueError(f"{text!r} lacks a port")
            return cls(host, port)
        number = int(found["port"])
        if number > 65_535:
            raise ValueError(f"{number} is not a port: 0 to 65535")
        return cls(host, number)


_ENDPOINT = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>[^\s:/\[\]]*))(?::(?P<port>[0-9]{1,5}))?"
)


def listen(endpoint: Endpoint, *, backlog: int = _BACKLOG) -> socket.socket:
    """`bind` or `bind_unix`, as the endpoint says."""
    if endpoint.path is not None:
        return bind_unix(Path(endpoint.path), backlog=backlog)
    return bind(endpoint.host, endpoint.port, backlog=backlog)


def bind(
    host: str, port: int, *, backlog: int = _BACKLOG, reuse_port: bool = False
) -> socket.socket:
    """A listening TCP socket, non-blocking, not inherited by children until `hand_over`.

    `::` and the empty host serve IPv4, too, where the machine has IPv6. `reuse_port` lets several
    processes bind the same port, each with its own queue. Raises ListenError.
    """
    endpoint = Endpoint(host, port)
    family, address = _resolve(host, port)
    sock: socket.socket | None = None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        # A restart must not wait for old connections in TIME_WAIT; on Linux this never allows two
        # listeners on one port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host in ("", "::") else 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(backlog)
    except OSError as error:
        if sock is not None:
            sock.close()
        if not host and family == socket.AF_INET6 and error.errno in _NO_V6:
            return bind("0.0.0.0", port, backlog=backlog, reuse_port=reuse_port)  # noqa: S104  asked for
        raise ListenError(_explain(endpoint, error)) from error
    return sock


_NO_V6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


def _resolve(host: str, port: int) -> tuple[int, Any]:
    """The first address of a name, in the system's order."""
    if not host:
        family = socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET
        return family, ("::" if socket.has_ipv6 else "0.0.0.0", port)  # noqa: S104  asked for
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except (OSError, UnicodeError) as error:
        raise ListenError(f"cannot listen on {Endpoint(host, port)}: unknown host") from error
    return found[0][0], found[0][4]


def bind_unix(path: Path, *, mode: int = 0o600, backlog: int = _BACKLOG) -> socket.socket:
    """A listening Unix socket at `path`, its file of that `mode` from the first moment on.

    A socket file that nobody listens on any more is replaced. Raises ListenError.
    """
    endpoint = Endpoint(path=str(path))
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear_stale(path)
        os.fchmod(sock.fileno(), mode)  # Linux gives the file the mode of the unbound socket
        sock.setblocking(False)
        sock.bind(str(path))
        path.chmod(mode)  # where the umask took bits away
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise ListenError(_explain(endpoint, error)) from error
    except ListenError:
        sock.close()
        raise
    return sock


def _clear_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ListenError(f"cannot listen on unix:{path}: a file that is no socket is there")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:  # its queue is full: somebody is there
            pass
    raise ListenError(f"cannot listen on unix:{path}: another process listens there")


def hand_over(sock: socket.socket) -> int:
    """The number under which a child inherits this socket; pass it in `pass_fds` and tell it."""
    os.set_inheritable(sock.fileno(), True)
    return sock.fileno()


def adopt(fd: int) -> socket.socket:
    """Take up an inherited listening socket by its number. Raises ListenError if it is none."""
    try:
        os.set_inheritable(fd, False)  # our own children are not to have it
        sock = socket.socket(fileno=fd)
    except (OSError, ValueError) as error:
        raise ListenError(f"file descriptor {fd} is no socket") from error
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise ListenError(f"file descriptor {fd} does not listen")
    sock.setblocking(False)
    return sock


def _explain(endpoint: Endpoint, error: OSError) -> str:
    hint = {
        errno.EADDRINUSE: "another process listens there",
        errno.EACCES: "not permitted"
        + (" (ports below 1024 need CAP_NET_BIND_SERVICE)" if 0 < endpoint.port < 1024 else ""),
        errno.EADDRNOTAVAIL: "no such address on this machine",
    }.get(error.errno or 0, error.strerror or str(error))
    return f"cannot listen on {endpoint}: {hint}"


def close_empty(sock: socket.socket) -> list[socket.socket]:
    """Close the last handle on a listening socket, and answer who was waiting there (non-blocking).

    The kernel resets those who wait as it closes: their peers could not tell whether what they had
    sent was acted on. So it is closed in the moment in which there are none.
    """
    waiting: list[socket.socket] = []
    sock.setblocking(False)
    with contextlib.suppress(OSError):  # BlockingIOError: that was all
        while True:
            waiting.append(sock.accept()[0])
    sock.close()
    for each in waiting:
        each.setblocking(False)
    return waiting
