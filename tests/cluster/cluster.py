"""Three hosts, two balancers and a place for clients, healthy; and all of it taken down again."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from tests.cluster import configuration
from tests.cluster.configuration import DATABASE, PASSWORD, PATRONI, POSTGRES, Layout
from tests.cluster.hosts import VENV, Host, Programs, installed
from tests.cluster.network import Namespace, Network, free_prefix, run
from tests.support.power import Disk
from tests.support.waiting import wait_until

__all__ = ["Balancer", "Cluster", "Member", "sweep"]

_HEALTHY_S = 90.0
_NAMED = "ep"
_FOLDERS = "everpost-cluster-"
_REPLICATION = """
SELECT pg_is_in_recovery(), count(*) FILTER (WHERE state = 'streaming'),
       count(*) FILTER (WHERE sync_state = 'sync')
FROM pg_stat_replication
"""


@dataclass(frozen=True, slots=True)
class Member:
    """A PostgreSQL server as Patroni lists it. `role`: leader, sync_standby, replica …"""

    name: str
    role: str
    state: str
    timeline: int


class Balancer:
    """One HAProxy, in a namespace of its own."""

    def __init__(self, programs: Programs, layout: Layout, folder: Path) -> None:
        self.address = programs.namespace.address
        self.name = programs.namespace.name.rpartition("-")[2]
        self.programs = programs
        self._socket = folder / f"{self.name}.sock"
        self._file = folder / f"{self.name}.cfg"
        text = configuration.haproxy(layout, self.address, str(self._socket))
        self._file.write_text(text, encoding="utf-8")

    def start(self) -> None:
        run("haproxy", "-c", "-q", "-f", str(self._file))
        self.programs.start("haproxy", ["haproxy", "-W", "-db", "-f", str(self._file)])

    def kill(self) -> list[int]:
        return self.programs.kill()

    def ask(self, command: str) -> str:
        """One of HAProxy's run-time commands."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(self._socket))
            sock.sendall(f"{command}\n".encode())
            found = b""
            while part := sock.recv(65536):
                found += part
        return found.decode()


class Cluster:
    """`with Cluster() as cluster: …`: healthy on entry, PostgreSQL and its database at least.

    `disks`: each host's data on an ext4 of its own, whose power can be cut. `doorway`: the machine
    itself reaches all addresses. `keep`: where the logs go at the end.
    """

    def __init__(self, *, disks: bool = False, doorway: bool = False, keep: Path | None = None):
        self._disks = disks
        self._doorway = doorway
        self._keep = keep
        self._stack = ExitStack()
        self.hosts: list[Host] = []
        self.balancers: list[Balancer] = []

    def __enter__(self) -> "Cluster":
        try:
            self._make()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """What is taken down is so in the reverse order: processes, disks, folder."""
        self._stack.close()

    def _make(self) -> None:
        bin_dir = installed()
        sweep()
        self.folder = self._stack.enter_context(_folder(self._keep))
        # A copy that PostgreSQL's user can read, wherever this project lies.
        shutil.copytree(VENV, self.folder / "venv", symlinks=True)
        name = f"{_NAMED}{os.getpid():x}"
        prefix = free_prefix(os.getpid())
        disks = [self._disk(n) for n in (1, 2, 3)]
        self.network = self._stack.enter_context(Network(name, prefix, doorway=self._doorway))
        spaces = {f"h{n}": self.network.host(f"h{n}", n) for n in (1, 2, 3)}
        fronts = [self.network.host(f"lb{n}", 9 + n) for n in (1, 2)]
        self.clients = self.network.host("clients", 20)
        self.layout = Layout(
            prefix, {n: s.address for n, s in spaces.items()}, [f.address for f in fronts]
        )
        for (host, space), disk in zip(spaces.items(), disks, strict=True):
            made = Host(host, space, self.layout, folder=self.folder / host, disk=disk)
            made.make(bin_dir=bin_dir)
            self.hosts.append(made)
        logs = self.folder / "logs"
        self.balancers = [
            Balancer(Programs(front, logs), self.layout, self.folder) for front in fronts
        ]

    def _disk(self, number: int) -> Disk | None:
        if not self._disks:
            return None
        folder = self.folder / f"disk{number}"
        folder.mkdir()
        return self._stack.enter_context(Disk(folder, mib=1024))

    def _start(self) -> None:
        for host in self.hosts:
            host.start_etcd(new=True)
        for host in self.hosts:
            host.start_patroni()
        for balancer in self.balancers:
            balancer.start()
        self.wait_healthy()
        self.sql(f"CREATE ROLE {DATABASE} LOGIN PASSWORD '{PASSWORD}'")
        self.sql(f"CREATE DATABASE {DATABASE} OWNER {DATABASE}")

    # -- what it looks like ------------------------------------------------------------------------

    def host(self, name: str) -> Host:
        return next(each for each in self.hosts if each.name == name)

    def http(self, address: str, port: int, path: str, *, timeout: float = 1.0) -> tuple[int, Any]:
        """Asked from where the clients are; JSON, or text where it is none. Raises OSError."""
        with self.clients.inside():
            connection = http.client.HTTPConnection(address, port, timeout=timeout)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read()
            except http.client.HTTPException as error:
                raise OSError(repr(error)) from error
            finally:
                connection.close()
        try:
            return answer.status, json.loads(body)
        except ValueError:
            return answer.status, body.decode(errors="replace")

    def members(self) -> list[Member]:
        """As the first host that answers sees them; none while nobody does."""
        for host in self.hosts:
            with suppress(OSError, KeyError, TypeError):
                _, found = self.http(host.address, PATRONI, "/cluster")
                return [
                    Member(m["name"], m["role"], m["state"], int(m.get("timeline") or 0))
                    for m in found["members"]
                ]
        return []

    def primary(self) -> Host | None:
        """The host whose Patroni says so itself."""
        for host in self.hosts:
            with suppress(OSError):
                status, _ = self.http(host.address, PATRONI, "/primary")
                if status == 200:
                    return host
        return None

    def sync_standby(self) -> Host | None:
        return next((self.host(m.name) for m in self.members() if m.role == "sync_standby"), None)

    def healthy(self) -> bool:
        """Each host's Patroni says itself that its server runs; there are a leader, a synchronous
        standby and one more, all of one timeline; and they are what the primary, as the balancers
        know it, sees. What Patroni lists alone may be as old as its lease."""
        found = self.members()
        return (
            len(found) == len(self.hosts)
            and {m.state for m in found} <= {"running", "streaming"}
            and sorted(m.role for m in found) == ["leader", "replica", "sync_standby"]
            and len({m.timeline for m in found}) == 1
            and all(self._runs(host) for host in self.hosts)
            and self._replicates()
        )

    def _runs(self, host: Host) -> bool:
        with suppress(OSError):
            return self.http(host.address, PATRONI, "/health")[0] == 200
        return False

    def _replicates(self) -> bool:
        with suppress(psycopg.Error):
            (states,) = self.sql(_REPLICATION)
            return states == (False, len(self.hosts) - 1, 1)
        return False

    def wait_healthy(self, *, seconds: float = _HEALTHY_S) -> float:
        """How long it took."""
        began = time.monotonic()
        wait_until(
            self.healthy,
            seconds=seconds,
            what=lambda: f"the cluster to be healthy: {self.members()}",
        )
        return round(time.monotonic() - began, 1)

    # -- what can be asked of it -------------------------------------------------------------------

    @contextmanager
    def connected(
        self, *, host: Host | None = None, database: str = "postgres", user: str = "postgres"
    ) -> Iterator["psycopg.Connection[Any]"]:
        """By way of the balancers, or straight to one host. Raises psycopg.Error."""
        url = configuration.primary_url(self.layout, user=user, database=database)
        if host is not None:
            url = f"postgresql://{user}:{PASSWORD}@{host.address}:{POSTGRES}/{database}"
        with self.clients.inside():
            connection = psycopg.connect(
                url, autocommit=True, connect_timeout=2, application_name="testbed",
                tcp_user_timeout=4000, keepalives_idle=1, keepalives_interval=1,
            )  # fmt: skip
        with connection:
            yield connection

    def sql(
        self,
        statement: str,
        values: Sequence[Any] = (),
        *,
        host: Host | None = None,
        database: str = "postgres",
    ) -> list[tuple[Any, ...]]:
        """Rows, of a statement that has some. Raises psycopg.Error."""
        with self.connected(host=host, database=database) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def etcd_leader(self) -> Host | None:
        for host in self.hosts:
            with suppress(AssertionError):
                shown = self._etcdctl(host, "endpoint", "status")
                if shown.split(", ")[4] == "true":
                    return host
        return None

    def move_etcd_leader(self, to: Host) -> None:
        leader = self.etcd_leader()
        if leader is not None and leader is not to:
            member = self._etcdctl(to, "endpoint", "status").split(", ")[1]
            self._etcdctl(leader, "move-leader", member)

    def _etcdctl(self, host: Host, *words: str) -> str:
        with self.clients.inside():
            endpoint = f"--endpoints=http://{host.address}:{configuration.ETCD}"
            return run("etcdctl", "--dial-timeout=1s", "--command-timeout=2s", endpoint, *words)

    def switch_over(self, to: Host) -> None:
        """A planned change of the primary, as an operator asks for it."""
        file = self.folder / self.hosts[0].name / "patroni.yml"
        words = ("-c", str(file), "switchover", "--force", "--candidate", to.name)
        python = self.folder / "venv/bin/python"
        with self.clients.inside():
            run(str(python), str(python.with_name("patronictl")), *words)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """In memory, where there is room: so that it is the faults that slow the hosts down and not
    this machine's disk. Everybody may read it, as PostgreSQL's user must."""
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDERS}{os.getpid():x}-", dir=_place()))
    folder.chmod(0o755)
    (folder / "logs").mkdir()
    try:
        yield folder
    finally:
        if keep is not None:
            with suppress(OSError):
                shutil.copytree(folder / "logs", keep / "logs", dirs_exist_ok=True)
        _remove(folder)


def _place() -> Path:
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else Path("/var/tmp")


def _remove(folder: Path) -> None:
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=False)


def sweep() -> list[str]:
    """Take down what is left of clusters whose maker was killed: its id is in all their names."""
    found = []
    for path in sorted(Path("/run/netns").glob(f"{_NAMED}*-*")):
        if _orphaned(path.name.removeprefix(_NAMED)):
            found.append(path.name)
            Namespace(path.name, "").kill()
    for name in found:
        run("ip", "netns", "del", name, check=False)
    for folder in sorted(_place().glob(f"{_FOLDERS}*")):
        if _orphaned(folder.name.removeprefix(_FOLDERS)):
            found.append(folder.name)
            mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
            for mount in reversed([line.split()[1] for line in mounts if f"{folder}/" in line]):
                run("umount", "--lazy", mount, check=False)
            _remove(folder)
    return found


def _orphaned(name: str) -> bool:
    """`name` begins with the maker's process id in hexadecimal, and a hyphen."""
    number = name.partition("-")[0]
    try:
        return not Path(f"/proc/{int(number, 16)}").exists()
    except ValueError:
        return False
