"""`everpost serve`: prepare the store, bind the sockets, start the roles, say that it is ready."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from everpost import telemetry
from everpost.assembly.places import Places
from everpost.config import Settings
from everpost.config.load import environment_name, keys
from everpost.net.listener import Endpoint, ListenError, hand_over, listen
from everpost.recovery.supervisor import Child, Supervisor

__all__ = ["serve"]

_BUSY = 4
"""Exit code when another instance has the data directory."""


def serve(settings: Settings) -> int:
    """Until SIGTERM. The exit code: 0 after a clean end, 1 on a fault, 4 when already running."""
    places = Places(settings.node.data.absolute())
    places.make()
    lock = _lock(places.lock)
    if lock is None:
        _say(
            f"Everpost already runs on {places.data} (process {_owner(places.lock)}). "
            "Stop it first, or give another directory with --data."
        )
        return _BUSY
    environment = {**os.environ, **_environment(settings, places)}
    prepared = _prepare(environment)
    if prepared is None:
        return 1
    try:
        sockets = {
            "api": listen(Endpoint.parse(settings.http.listen)),
            "operator": listen(Endpoint(path=str(places.operator_socket))),
        }
        if settings.http.admin_listen:
            sockets["admin"] = listen(Endpoint.parse(settings.http.admin_listen))
    except ListenError as error:
        _say(f"Everpost {error}. Give another address with --listen or --admin-listen.")
        return 1
    # The environment holds every setting; no file may contradict it in a child.
    program = [sys.executable, "-m", "everpost", "run", f"--config={os.devnull}"]
    os.environ.update(environment)
    os.environ.pop("EVERPOST_FIRST_API_KEY", None)
    children = [
        Child(
            "api",
            [*program, "api", "upkeep", "--name=api"],
            {name: hand_over(sock) for name, sock in sockets.items()},
        ),
        *(
            Child(f"dispatch-{n}", [*program, "dispatch", f"--name=dispatch-{n}"])
            for n in range(1, (settings.node.processes or os.cpu_count() or 1) + 1)
        ),
    ]
    address = "{}:{}".format(*sockets["api"].getsockname()[:2])
    admin = sockets.get("admin")
    metrics = "{}:{}".format(*admin.getsockname()[:2]) if admin else None

    def on_ready() -> None:
        _banner(settings, places, address, metrics, prepared)

    supervisor = Supervisor(children, drain_s=settings.node.drain_s, on_ready=on_ready)
    code = supervisor.run()
    places.operator_socket.unlink(missing_ok=True)
    telemetry.event("serve.ended", code=code)
    return code


def _lock(path: Path) -> int | None:
    """Hold the data directory for this process's life; None when another one does."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def _owner(path: Path) -> str:
    return path.read_text(encoding="ascii").strip() or "unknown"


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


def _banner(
    settings: Settings,
    places: Places,
    address: str,
    metrics: str | None,
    prepared: Mapping[str, object],
) -> None:
    url = settings.node.public_url or f"http://{address}"
    key = prepared.get("key")
    program = Path(sys.argv[0]).name if Path(sys.argv[0]).name == "everpost" else "everpost"
    lines = [
        "",
        f"Everpost is ready at {url}  (documentation: {url}/docs)",
        f"  data        {places.data}, durability {settings.store.durability.value}",
    ]
    if metrics:
        lines.append(f"  metrics     http://{metrics}/metrics")
    if isinstance(key, str):
        lines.append(f"  API key     {key}")
        lines.append("              (shown this once; the store keeps only its hash)")
    if prepared.get("sandbox"):
        lines.append("  sandbox     no relay and no domain is set up: mail is captured, not sent")
    shown = key if isinstance(key, str) else "$EVERPOST_API_KEY"
    quote = "'" if isinstance(key, str) else '"'
    lines += [
        "",
        "Send a first message:",
        "",
        f"  curl -sS {url}/emails -H {quote}Authorization: Bearer {shown}{quote} \\",
        "    -H 'Content-Type: application/json' \\",
        '    -d \'{"from":"Me <me@example.com>","to":"you@example.net",'
        '"subject":"Hello","text":"It works."}\'',
        "",
        f"and look at it: {program} sandbox list --data {settings.node.data}"
        if prepared.get("sandbox")
        else f"and follow it: {program} status --data {settings.node.data}",
        "",
    ]
    print("\n".join(lines), flush=True)  # noqa: T201  what the command says to its user


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)  # noqa: T201  what the command says to its user
