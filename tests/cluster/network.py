"""Hosts as network namespaces on one switch, and what breaks between them. Linux, root.

Nothing is added to the machine's own network but, where asked for, one device to look in by. A
program is started in a namespace from a thread that is in it: `ip netns exec` would give it a
mount table of its own, which keeps a dead disk (RELIABILITY.md §6).
"""

import ctypes
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.support.waiting import wait_until

__all__ = ["Namespace", "Network", "run"]

_CLONE_NEWNET = 0x40000000
_NAMES = Path("/run/netns")
_libc = ctypes.CDLL(None, use_errno=True)


def run(*command: str, check: bool = True, text: str | None = None) -> str:
    """Its output; AssertionError with its complaint where it fails and that matters."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, input=text)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout


class Namespace:
    """One host's network. `name` is the kernel's, `address` its only one."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is there in the block: its new sockets and its new programs."""
        with ExitStack() as stack:
            before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            stack.callback(os.close, before)
            there = os.open(_NAMES / self.name, os.O_RDONLY)
            stack.callback(os.close, there)
            _enter(there)
            try:
                yield
            finally:
                _enter(before)

    def pids(self) -> list[int]:
        """Of the programs that run there. This process is never one, wherever its threads are."""
        try:
            inode = (_NAMES / self.name).stat().st_ino
        except OSError:
            return []
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with suppress(OSError):
                if (entry / "ns" / "net").stat().st_ino == inode and _lives(int(entry.name)):
                    found.append(int(entry.name))
        return sorted(found)

    def signal(self, number: int, pids: Sequence[int] | None = None) -> list[int]:
        """All programs there, or those of `pids` that are still there; the ones that were told."""
        told = []
        for pid in self.pids() if pids is None else [p for p in self.pids() if p in set(pids)]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
                told.append(pid)
        return told

    def stop_all(self) -> None:
        """As a machine that is paused: until none runs any more that could start another."""
        stopped: set[int] = set()
        while new := set(self.pids()) - stopped:
            for pid in new:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            stopped |= new

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self, seconds: float = 20) -> list[int]:
        """As a machine that loses its power; those that were killed. None is left on return."""
        self.stop_all()
        killed = self.signal(signal.SIGKILL)
        wait_until(
            lambda: not self.signal(signal.SIGKILL),
            seconds=seconds,
            what=lambda: f"{self.name}'s processes to be gone: {self.pids()}",
        )
        return killed

    def rules(self, name: str, rules: Sequence[str]) -> None:
        """nftables rules for what comes in (`in …`) and goes out (`out …`), instead of those given
        under this name before; none of them: all of them are lifted."""
        table = f"table inet {name}"
        lines = [table, f"delete {table}"]
        if rules:
            for hook in ("in", "out"):
                body = "; ".join(r.partition(" ")[2] for r in rules if r.partition(" ")[0] == hook)
                kind = "input" if hook == "in" else "output"
                lines.append(f"add {table}")
                head = f"type filter hook {kind} priority 0;"
                lines.append(f"add chain inet {name} {hook}side {{ {head} }}")
                lines += [f"add rule inet {name} {hook}side {r}" for r in body.split("; ") if r]
        with self.inside():
            run("nft", "-f", "-", text="\n".join(lines) + "\n")


class Network:
    """`with Network("ep1f", "10.231.7") as net: h1 = net.host("h1", 1)`. `doorway`: the machine
    itself is on the switch too, as `.254`."""

    def __init__(self, name: str, prefix: str, *, doorway: bool = False) -> None:
        self._name = name
        self.prefix = prefix
        self._doorway = doorway
        self.switch = Namespace(f"{name}-sw", "")
        self._made: list[Namespace] = []

    def __enter__(self) -> "Network":
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self) -> None:
        self._add(self.switch)
        switch = ("ip", "-n", self.switch.name)
        run(*switch, "link", "add", "br0", "type", "bridge")
        run(*switch, "link", "set", "br0", "up")
        if self._doorway:
            door = self._name
            run("ip", "link", "add", door, "type", "veth", "peer", "name", "p-door",
                "netns", self.switch.name)  # fmt: skip
            run("ip", "addr", "add", f"{self.prefix}.254/24", "dev", door)
            run("ip", "link", "set", door, "up")
            run(*switch, "link", "set", "p-door", "master", "br0")
            run(*switch, "link", "set", "p-door", "up")

    def host(self, name: str, number: int) -> Namespace:
        """A new one, with the address `prefix.number`."""
        made = Namespace(f"{self._name}-{name}", f"{self.prefix}.{number}")
        self._add(made)
        inside, switch = ("ip", "-n", made.name), ("ip", "-n", self.switch.name)
        run("ip", "link", "add", "eth0", "netns", made.name, "type", "veth", "peer", "name",
            f"p-{name}", "netns", self.switch.name)  # fmt: skip
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "addr", "add", f"{made.address}/24", "dev", "eth0")
        run(*inside, "link", "set", "eth0", "up")
        run(*switch, "link", "set", f"p-{name}", "master", "br0")
        run(*switch, "link", "set", f"p-{name}", "up")
        return made

    def _add(self, made: Namespace) -> None:
        run("ip", "netns", "add", made.name)
        self._made.append(made)

    def __exit__(self, *_: object) -> None:
        """Each process of the hosts is ended, by its id, and they are taken away."""
        for made in reversed(self._made):
            with suppress(AssertionError):
                made.kill()
        for made in reversed(self._made):
            run("ip", "netns", "del", made.name, check=False)
        self._made.clear()
        if self._doorway:
            run("ip", "link", "del", self._name, check=False)


def free_prefix(number: int) -> str:
    """A /24 of 10.231 that no device of this machine has, `number` chooses where to look first."""
    links = json.loads(run("ip", "-json", "addr"))
    taken = {a["local"] for link in links for a in link.get("addr_info", ())}
    for n in range(256):
        prefix = f"10.231.{(number + n) % 256}"
        if not any(address.startswith(f"{prefix}.") for address in taken):
            return prefix
    raise AssertionError("10.231/16 is full")


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _lives(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return file.read().rpartition(")")[2].split()[0] not in "ZX"
