"""One of the three hosts: etcd, Patroni with its PostgreSQL, PgBouncer and an Everpost node.

It can be killed, paused, cut off its power, and started again; its programs can be told apart.
"""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.cluster import configuration
from tests.cluster.configuration import Layout
from tests.cluster.network import Namespace
from tests.support.power import Disk
from tests.support.waiting import wait_until

__all__ = ["AS_POSTGRES", "ROOT", "VENV", "Host", "Programs"]

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-cluster"
AS_POSTGRES = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups")
_AGAIN = 'while :; do "$@"; sleep 1; done'
_PATHS = "/usr/sbin:/usr/bin:/sbin:/bin"


class Programs:
    """What runs in one namespace; each program's output goes to a log of its name."""

    def __init__(self, namespace: Namespace, logs: Path) -> None:
        self.namespace = namespace
        self.logs = logs
        self._started: list[subprocess.Popen[bytes]] = []

    def start(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        self.reap()
        path = self.logs / f"{self.namespace.name.rpartition('-')[2]}-{name}.log"
        with path.open("ab") as log, self.namespace.inside():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": _PATHS, "LC_ALL": "C.UTF-8", **(environment or {})},
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def reap(self) -> None:
        self._started = [each for each in self._started if each.poll() is None]

    def kill(self) -> list[int]:
        """All of them, by their ids; none is left on return."""
        killed = self.namespace.kill()
        for each in self._started:
            each.wait(timeout=10)
        self._started.clear()
        return killed


class Host:
    """`disk` None: the data lie in a folder, and the power cannot be cut. Everpost runs on the
    interpreter that `python` names; another version's may take its place (F41)."""

    def __init__(
        self, name: str, namespace: Namespace, layout: Layout, *, folder: Path, disk: Disk | None
    ) -> None:
        self.name = name
        self.namespace = namespace
        self.address = namespace.address
        self.disk = disk
        self.python = sys.executable
        self.settings: dict[str, str] = {}
        self.arguments: tuple[str, ...] = ()
        self._layout = layout
        self._folder = folder
        self._boot = folder / "boot_id"
        self.programs = Programs(namespace, folder.parent / "logs")
        self.runs_everpost = False
        self.pools = False

    @property
    def data(self) -> Path:
        return self.disk.path if self.disk is not None else self._folder

    # -- its life ----------------------------------------------------------------------------------

    def make(self, *, bin_dir: str) -> None:
        """The data's folder, and the files of configuration beside it, off the disk."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.data.mkdir(parents=True, exist_ok=True)
        subprocess.run(["chown", "postgres", str(self.data), str(self._folder)], check=True)
        place = str(self.data)
        texts = {
            "patroni.yml": configuration.patroni(self._layout, self.name, place, bin_dir=bin_dir),
            "pgbouncer.ini": configuration.bouncer(self._layout, str(self._folder)),
        }
        for name, text in texts.items():
            (self._folder / name).write_text(text, encoding="utf-8")
            subprocess.run(["chown", "postgres", str(self._folder / name)], check=True)

    def start_etcd(self, *, new: bool = False) -> None:
        command = configuration.etcd(self._layout, self.name, str(self.data), new=new)
        self.programs.start("etcd", [*AS_POSTGRES, *command])

    def start_patroni(self) -> None:
        python = self._folder.parent / "venv/bin/python"
        patroni = (str(python), "-m", "patroni", str(self._folder / "patroni.yml"))
        # What a killed PostgreSQL leaves in the kernel goes with its IPC namespace.
        self.programs.start(
            "patroni",
            ["unshare", "--ipc", "--", *AS_POSTGRES, *patroni],
            environment={"PYTHONUNBUFFERED": "1"},
        )

    def start_pgbouncer(self) -> None:
        command = ("pgbouncer", "-q", str(self._folder / "pgbouncer.ini"))
        self.programs.start("pgbouncer", [*AS_POSTGRES, *command])

    def start_everpost(self) -> None:
        """All roles, as `everpost serve` runs them; when that ends it is started again, as by a
        service manager."""
        self.programs.start(
            "everpost",
            [
                *self._boots(),
                *("sh", "-c", _AGAIN, "sh"),
                *(self.python, "-m", "everpost", "serve", "--data", str(self.data / "everpost")),
                *("--listen", f"{self.address}:{configuration.API}"),
                *("--admin-listen", "127.0.0.1:8081", *self.arguments),
            ],
            environment=self.settings,
        )

    def _boots(self) -> Sequence[str]:
        """Everpost sees a boot id of this host's own, where the power can be cut: by another one it
        knows that what was not flushed is gone. The place that disks are unmounted from is shared,
        so none stays in this mount namespace."""
        if self.disk is None:
            return ()
        if not self._boot.exists():
            self._boot.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
        bind = f"mount --bind '{self._boot}' /proc/sys/kernel/random/boot_id && exec \"$@\""
        return ("unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", bind, "sh")

    def start(self) -> None:
        """After it was killed: all that ran there."""
        self.start_etcd()
        self.start_patroni()
        if self.pools:
            self.start_pgbouncer()
        if self.runs_everpost:
            self.start_everpost()

    def kill(self) -> list[int]:
        return self.programs.kill()

    def freeze(self) -> None:
        self.namespace.stop_all()

    def thaw(self) -> None:
        self.namespace.go_on()

    def go_dark(self) -> None:
        """The disk of a frozen host loses its power in this instant."""
        assert self.disk is not None, "this cluster was made without disks"
        self.disk.go_dark()

    def power_again(self) -> None:
        """Of a host that was killed: its disk is there again, nothing is started."""
        assert self.disk is not None
        self.disk.mount_again()
        self._boot.write_text(f"{uuid.uuid4()}\n", encoding="ascii")

    # -- its programs ------------------------------------------------------------------------------

    def pids(self, kind: str = "") -> list[int]:
        """Of `etcd`, `patroni`, `postgres`, `pgbouncer`, `everpost`, or of all."""
        return [p for p in self.namespace.pids() if not kind or _kind(p) == kind]

    def postmaster(self) -> int | None:
        """None while there is none."""
        with suppress(OSError, ValueError, IndexError):
            pid = int((self.data / "postgres/postmaster.pid").read_text().splitlines()[0])
            if pid in self.pids("postgres"):
                return pid
        return None

    def backends(self, *words: str) -> list[int]:
        """PostgreSQL's processes whose title has one of `words`, such as `walreceiver`."""
        return [p for p in self.pids("postgres") if any(w in _title(p) for w in words)]

    def children(self, role: str = "") -> list[int]:
        """Everpost's processes of one role; `dispatch`, `api` …, or all but the supervisor."""
        found = []
        for pid in self.pids("everpost"):
            title = _title(pid)
            if " run " in title and role in title.partition(" run ")[2]:
                found.append(pid)
        return found

    def end_everpost(self) -> list[int]:
        """As a service manager does it: asked to end, and waited for; whom it asked."""
        everpost = self.pids("everpost")
        self.namespace.signal(signal.SIGKILL, [p for p in everpost if _title(p).startswith("sh ")])
        asked = [p for p in everpost if " serve " in _title(p)]
        told = self.namespace.signal(signal.SIGTERM, asked)
        self.wait_gone("everpost", seconds=60)
        return told

    def wait_gone(self, kind: str, *, seconds: float = 20) -> None:
        wait_until(
            lambda: not self.pids(kind), seconds=seconds, what=f"{kind} of {self.name} to end"
        )
        self.programs.reap()

    def still(self, pids: Sequence[int]) -> Callable[[], None]:
        """Stops them; call what it returns to wake them."""
        stopped = self.namespace.signal(signal.SIGSTOP, pids)
        return lambda: _wake(self.namespace, stopped)


def _wake(namespace: Namespace, pids: Sequence[int]) -> None:
    namespace.signal(signal.SIGCONT, pids)


def _title(pid: int) -> str:
    """Its command line, or what it calls itself."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(
            errors="replace"
        )  # fmt: skip
    except OSError:
        return ""


def _kind(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""
    if name in ("etcd", "postgres", "pgbouncer"):
        return name
    title = _title(pid)
    return next((k for k in ("patroni", "everpost") if f"-m {k}" in title or k in name), name)


def installed() -> str:
    """The folder of PostgreSQL's programs. AssertionError where the testbed cannot run."""
    assert os.geteuid() == 0, "network namespaces are made by root only"
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    assert found, "PostgreSQL is missing: tests/support/requirements.py installs it"
    assert (VENV / "bin/patroni").exists(), "Patroni is missing: say make cluster"
    return str(found[-1].parent)
