"""`everpost serve`: bind the sockets, prepare the store, start the roles, say that it is ready."""

import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping

from everpost import telemetry
from everpost.assembly.banner import banner
from everpost.assembly.places import Places
from everpost.config import Settings
from everpost.config.load import environment_name, keys
from everpost.net.listener import Endpoint, ListenError, hand_over, listen
from everpost.recovery.supervisor import Child, Supervisor

__all__ = ["serve"]

_BUSY = 4
"""Exit code when another instance has the data directory."""
_LONGEST_DATA = 80
"""Characters of the data directory's absolute path: the names of Unix sockets below it may have 107
bytes in all (unix(7))."""


def serve(settings: Settings) -> int:
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
    environment = {**os.environ, **_environment(settings, places)}
    prepared = _prepare(environment)
    if prepared is None:
        return 1
    os.environ.update(environment)
    os.environ.pop("EVERPOST_FIRST_API_KEY", None)

    def on_ready() -> None:
        addresses = {
            name: str(Endpoint(*sock.getsockname()[:2]))
            for name, sock in sockets.items()
            if name != "operator"
        }
        print(banner(settings, places, addresses, prepared), flush=True)  # noqa: T201

    supervisor = Supervisor(
        _children(settings, sockets), drain_s=settings.node.drain_s, on_ready=on_ready
    )
    code = supervisor.run()
    places.operator_socket.unlink(missing_ok=True)
    telemetry.event("serve.ended", code=code)
    return code


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
    return sockets


def _environment(settings: Settings, places: Places) -> Mapping[str, str]:
    """The settings as environment, so that every child has the very same."""
    values = {
        environment_name(key): str(getattr(getattr(settings, key.section), key.name))
        for key in keys()
    }
    values["EVERPOST_NODE_DATA"] = str(places.data)
    values["PROMETHEUS_MULTIPROC_DIR"] = str(places.metrics)
    return values


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


def _children(settings: Settings, sockets: Mapping[str, socket.socket]) -> list[Child]:
    # The environment holds every setting; no file may contradict it in a child.
    program = [sys.executable, "-m", "everpost", "run", f"--config={os.devnull}"]
    inherited = {name: hand_over(sock) for name, sock in sockets.items()}
    return [
        Child("api", [*program, "api", "upkeep", "--name=api"], inherited),
        *(
            Child(f"dispatch-{n}", [*program, "dispatch", f"--name=dispatch-{n}"])
            for n in range(1, settings.node.dispatchers + 1)
        ),
    ]


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)  # noqa: T201  what the command says to its user
