"""`everpost serve`: bind the sockets, prepare the store, start the roles, say that it is ready."""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from everpost import telemetry
from everpost.assembly.banner import banner
from everpost.assembly.naming import many_nodes
from everpost.assembly.places import Places
from everpost.assembly.reread import values_of
from everpost.clock import SystemClock
from everpost.config import Origin, Settings, load, unchangeable
from everpost.net.listener import Endpoint, ListenError, hand_over, listen
from everpost.net.waker import Waker
from everpost.recovery.reloading import Plan, Reader
from everpost.recovery.spawning import Child
from everpost.recovery.supervisor import Report, Supervisor
from everpost.recovery.watching import Patience

__all__ = ["serve"]

_BUSY = 4
"""Exit code when another instance has the data directory."""
_LONGEST_DATA = 80
"""Characters of the data directory's absolute path: the names of Unix sockets below it may have 107
bytes in all (unix(7))."""


def serve(settings: Settings, origin: Origin) -> int:
    """Until SIGTERM. The exit code: 0 after a clean end, 1 on a fault, 4 when already running."""
    places = Places(settings.node.data.absolute())
    lock = _take(places)
    if isinstance(lock, str):
        _say(lock)
        return _BUSY if "already runs" in lock else 1
    try:
        sockets = _bind(settings, places)
    except ListenError as error:
        _say(f"Everpost {error}. Give another address with --listen or --admin-listen.")
        return 1
    given = dict(os.environ)
    prepared = _prepare(_environment(given, settings, places))
    if prepared is None:
        return 1
    given.pop("EVERPOST_FIRST_API_KEY", None)
    os.environ.pop("EVERPOST_FIRST_API_KEY", None)

    def on_ready() -> None:
        addresses = {
            name: str(Endpoint(*sock.getsockname()[:2]))
            for name, sock in sockets.items()
            if name not in {"operator", "peers"}
        }
        print(banner(settings, places, addresses, prepared), flush=True)  # noqa: T201

    def closing() -> None:
        # Ours are the last ones once the children have closed theirs: whoever comes then is
        # refused, and does not wait in a queue that nobody serves.
        for sock in sockets.values():
            sock.close()

    house = _House(settings, places, given, {n: hand_over(sock) for n, sock in sockets.items()})
    supervisor = Supervisor(
        house.plan(settings),
        reader=house.reader(origin),
        report=house.report(origin, on_ready, closing),
    )
    code = supervisor.run()
    for left in (places.operator_socket, places.children):
        with contextlib.suppress(OSError):
            left.unlink()
    telemetry.event("serve.ended", code=code)
    return code


class _House:
    """What the supervisor is given: `given` is the environment as this command found it."""

    def __init__(
        self,
        settings: Settings,
        places: Places,
        given: Mapping[str, str],
        inherited: Mapping[str, int],
    ) -> None:
        self._settings = settings
        self._places = places
        self._given = given
        self._inherited = inherited
        self._upkeep = Waker(places.run, "upkeep")

    def plan(self, settings: Settings) -> Plan:
        """What runs under these settings."""
        # The environment holds every setting; no file may contradict it in a child.
        program = [sys.executable, "-m", "everpost", "run", f"--config={os.devnull}"]
        environment = _environment(self._given, settings, self._places)
        doors = Child("api", [*program, "api", "upkeep"], environment, self._inherited)
        dispatchers = (
            Child(f"dispatch-{n}", [*program, "dispatch"], environment)
            for n in range(1, settings.node.dispatchers + 1)
        )
        return Plan(
            children=(doors, *dispatchers),
            drain_s=settings.node.drain_s,
            patience=Patience(hung_s=settings.node.hung_s, start_s=settings.node.start_s),
            linger_s=settings.http.linger_s,
        )

    def reader(self, origin: Origin) -> Reader:
        words = json.dumps(
            {"file": str(origin.file) if origin.file else None, "options": dict(origin.options)}
        )
        command = [sys.executable, "-m", "everpost.assembly.reread", words]
        return Reader(command, self._given, self._decide)

    def _decide(self, said: bytes) -> Plan | tuple[str, ...]:
        """What the reader printed, as a plan; or why this server cannot take it."""
        found = json.loads(said)
        if "problems" in found:
            return tuple(found["problems"])
        wanted = load(Path(os.devnull), found["values"], {})
        return unchangeable(self._settings, wanted) or self.plan(wanted)

    def report(
        self, origin: Origin, ready: Callable[[], None], closing: Callable[[], None]
    ) -> Report:
        return Report(
            file=self._places.children,
            origin=(str(origin.file) if origin.file else None, dict(origin.options)),
            now=SystemClock().now,
            ready=ready,
            lost=self._lost,
            ended=self._places.forget_gauges,
            closing=closing,
        )

    def _lost(self) -> None:
        """Upkeep looks at once after what a dead process had in hand."""
        self._upkeep.forget()
        self._upkeep.wake()


def _take(places: Places) -> int | str:
    """The data directory's lock, held for this process's life; or why it cannot be had."""
    if len(os.fsencode(places.data)) > _LONGEST_DATA:
        return (
            f"The data directory's path is too long for the sockets below it: {places.data}. "
            f"Give one of at most {_LONGEST_DATA} characters with --data."
        )
    try:
        places.make()
        fd = os.open(places.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return f"Everpost cannot use {places.data}: {error.strerror}. Give another with --data."
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        owner = places.lock.read_text(encoding="ascii").strip() or "unknown"
        return (
            f"Everpost already runs on {places.data} (process {owner}). "
            "Stop it first, or give another directory with --data."
        )
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def _bind(settings: Settings, places: Places) -> Mapping[str, socket.socket]:
    """The listening sockets, before anything is written. Raises ListenError."""
    sockets = {
        "api": listen(Endpoint.parse(settings.http.listen)),
        "operator": listen(Endpoint(path=str(places.operator_socket))),
    }
    if settings.http.admin_listen:
        sockets["admin"] = listen(Endpoint.parse(settings.http.admin_listen))
    if many_nodes(settings) and settings.cluster.listen and settings.cluster.secret_file:
        sockets["peers"] = listen(Endpoint.parse(settings.cluster.listen))
    return sockets


def _environment(given: Mapping[str, str], settings: Settings, places: Places) -> Mapping[str, str]:
    return {
        **given,
        **values_of(settings),
        "EVERPOST_NODE_DATA": str(places.data),
        "PROMETHEUS_MULTIPROC_DIR": str(places.metrics),
    }


def _prepare(environment: Mapping[str, str]) -> Mapping[str, object] | None:
    """Bring the store up to date in a process of its own, so that this one stays small."""
    done = subprocess.run(
        [sys.executable, "-m", "everpost.assembly.prepare"],
        env=dict(environment),
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        return None
    prepared: Mapping[str, object] = json.loads(done.stdout)
    return prepared


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)  # noqa: T201  what the command says to its user
