"""Does to a cluster what the schedule says, and heals it again."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from tests.chaos.history import History
from tests.chaos.nemesis import Fault
from tests.chaos.playing import Done, Player, rest
from tests.chaos.sink import Sink
from tests.cluster import strangers
from tests.cluster.cluster import Cluster
from tests.cluster.configuration import POSTGRES
from tests.cluster.hosts import Host
from tests.cluster.nemesis import KINDS
from tests.support.tracing import injecting
from tests.support.waiting import wait_until

__all__ = ["Faults"]

_HEALS_S = 150.0
_FIND_S = 60.0
"""The primary is looked for so long: a mix may have just taken it away."""


class Faults(Player):
    """`table`: of the subject, whose rows a stranger locks; `leader`: the host whose node does what
    one does for all; `other_python`: an interpreter with another version of Everpost. `cuts`: disks
    that lost their power. What is done to the database ends when that is whole again."""

    def __init__(
        self,
        cluster: Cluster,
        sinks: Sequence[Sink],
        history: History,
        *,
        table: str,
        leader: Callable[[], str | None] = lambda: None,
        other_python: str | None = None,
    ) -> None:
        super().__init__(history, kinds=KINDS, patience_s=400)
        self._cluster = cluster
        self._sinks = sinks
        self._table = table
        self._leader = leader
        self._other_python = other_python
        self.cuts = 0

    def _before(self, fault: Fault) -> None:
        """What is done to the database is done to a whole one."""
        if "db" in KINDS[fault.name].holds:
            self._cluster.wait_healthy(seconds=_HEALS_S)

    def doer(self, name: str) -> Callable[[Fault], Done]:
        if name.startswith("sink_"):
            return self._sink
        found: Callable[[Fault], Done] = getattr(self, f"_{name}")
        if "db" in KINDS[name].holds:
            return lambda fault: self._then_whole(found, fault)
        return found

    def _then_whole(self, done: Callable[[Fault], Done], fault: Fault) -> Done:
        found = done(fault)
        took = self._cluster.wait_healthy(seconds=_HEALS_S)
        return {**found, "whole_after_s": took}

    # -- whom it hits ------------------------------------------------------------------------------

    def _primary(self) -> Host:
        found: list[Host] = []

        def there() -> bool:
            host = self._cluster.primary()
            found[:] = [host] if host is not None else []
            return bool(found)

        wait_until(there, seconds=_FIND_S, what="a primary")
        return found[0]

    def _others(self, host: Host) -> list[Host]:
        return [each for each in self._cluster.hosts if each is not host]

    def _standby(self) -> Host:
        return self._cluster.sync_standby() or self._others(self._primary())[0]

    def _any(self, fault: Fault) -> Host:
        return self._cluster.hosts[int(fault.pick * len(self._cluster.hosts))]

    def _mostly_the_primary(self, fault: Fault) -> Host:
        primary = self._primary()
        return primary if fault.pick < 0.75 else self._others(primary)[0]

    # -- hosts -------------------------------------------------------------------------------------

    def _pgkill(self, fault: Fault) -> Done:
        host = self._primary()
        pid = host.postmaster()
        killed = host.namespace.signal(signal.SIGKILL, [pid] if pid else [])
        rest(fault.length)
        return {"host": host.name, "killed": killed}

    def _hostkill(self, fault: Fault) -> Done:
        host = self._primary()
        return self._down(host, fault.length)

    def _syncstandbykill(self, fault: Fault) -> Done:
        return self._down(self._standby(), fault.length)

    def _down(self, host: Host, seconds: float) -> Done:
        killed = host.kill()
        rest(seconds)
        host.start()
        return {"host": host.name, "killed": killed}

    def _powercut(self, fault: Fault) -> Done:
        host = self._primary()
        self._cut([host])
        rest(fault.length)
        self._power([host])
        return {"host": host.name, "cuts": 1}

    def _powercutall(self, fault: Fault) -> Done:
        hosts = self._cluster.hosts
        self._cut(hosts)
        rest(fault.length)
        self._power(hosts)
        return {"cuts": len(hosts)}

    def _cut(self, hosts: Sequence[Host]) -> None:
        """All at one moment. A machine without power computes nothing: they stand still first."""
        for host in hosts:
            host.freeze()
        for host in hosts:
            host.go_dark()
        for host in hosts:
            host.kill()
        self.cuts += len(hosts)

    def _power(self, hosts: Sequence[Host]) -> None:
        for host in hosts:
            host.power_again()
        for host in hosts:
            host.start()

    def _freeze(self, fault: Fault) -> Done:
        """The whole host, its etcd made the leader before: finding 1."""
        host = self._primary()
        with suppress(AssertionError):
            self._cluster.move_etcd_leader(host)
        host.freeze()
        try:
            rest(fault.length)
        finally:
            host.thaw()
        return {"host": host.name, "paused": host.pids()}

    def _freezedb(self, fault: Fault) -> Done:
        host = self._primary()
        pids = [*host.pids("patroni"), *host.pids("postgres")]
        wake = host.still(pids)
        try:
            rest(fault.length)
        finally:
            wake()
        return {"host": host.name, "paused": pids}

    def _standbysgone(self, fault: Fault) -> Done:
        """The servers and who would start them again; the hosts live on."""
        others = self._others(self._primary())
        killed = []
        for host in others:
            killed += host.namespace.signal(signal.SIGKILL, host.pids("patroni"))
            killed += host.namespace.signal(signal.SIGKILL, host.pids("postgres"))
        for host in others:
            host.wait_gone("postgres")
        gone_from = time.monotonic()
        rest(fault.length)
        gone_until = time.monotonic()
        for host in others:
            host.start_patroni()
        return {"killed": killed, "gone_from": gone_from, "gone_until": gone_until}

    def _switchover(self, fault: Fault) -> Done:
        to = self._standby()
        self._cluster.switch_over(to)
        rest(fault.length)
        return {"host": to.name}

    # -- etcd and Patroni --------------------------------------------------------------------------

    def _etcdleaderkill(self, fault: Fault) -> Done:
        leader = self._cluster.etcd_leader()
        return self._etcd_down([leader] if leader else [], fault)

    def _etcdmajority(self, fault: Fault) -> Done:
        primary = self._primary()
        # With or without the primary's own: it must live on by what its standbys tell it.
        hosts = self._others(primary) if fault.pick < 0.5 else [primary, self._others(primary)[0]]
        return self._etcd_down(hosts, fault)

    def _etcd_down(self, hosts: Sequence[Host], fault: Fault) -> Done:
        killed = []
        for host in hosts:
            killed += host.namespace.signal(signal.SIGKILL, host.pids("etcd"))
            host.wait_gone("etcd")
        rest(fault.length)
        for host in hosts:
            host.start_etcd()
        return {"hosts": [host.name for host in hosts], "killed": killed}

    def _patronikill(self, fault: Fault) -> Done:
        """PostgreSQL lives on without it, and takes writes while another becomes the primary."""
        host = self._primary()
        killed = host.namespace.signal(signal.SIGKILL, host.pids("patroni"))
        host.wait_gone("patroni")
        rest(fault.length)
        host.start_patroni()
        return {"host": host.name, "killed": killed}

    # -- links -------------------------------------------------------------------------------------

    def _partition(self, fault: Fault) -> Done:
        """Hosts among themselves; clients and balancers still reach it."""
        host = self._mostly_the_primary(fault)
        others = ", ".join(each.address for each in self._others(host))
        rules = [f"in ip saddr {{ {others} }} drop", f"out ip daddr {{ {others} }} drop"]
        return self._cut_off(host, fault, rules)

    def _partition_oneway(self, fault: Fault) -> Done:
        """It hears the other hosts and they do not hear it, or the other way round."""
        host = self._mostly_the_primary(fault)
        others = ", ".join(each.address for each in self._others(host))
        deaf = f"in ip saddr {{ {others} }} drop"
        mute = f"out ip daddr {{ {others} }} drop"
        return self._cut_off(host, fault, [deaf if (fault.pick * 100) % 1 < 0.5 else mute])

    def _isolate(self, fault: Fault) -> Done:
        """From everybody."""
        rules = ['in iifname "eth0" drop', 'out oifname "eth0" drop']
        return self._cut_off(self._mostly_the_primary(fault), fault, rules)

    def _cut_off(self, host: Host, fault: Fault, rules: Sequence[str]) -> Done:
        with _rules(host, "parted", rules):
            rest(fault.length)
        return {"host": host.name, "rules": list(rules)}

    def _replication_slow(self, fault: Fault) -> Done:
        """Both receivers stand still most of the time: the log arrives late, in bursts."""
        stopped = 0
        for still in _pulses(fault.length, on_s=0.2, off_s=0.05):
            for host in self._cluster.hosts:
                number = signal.SIGSTOP if still else signal.SIGCONT
                stopped += len(host.namespace.signal(number, host.backends("walreceiver"))) * still
        return {"pauses": stopped}

    def _replication_lossy(self, fault: Fault) -> Done:
        """Every tenth packet between the servers is lost."""
        with ExitStack() as stack:
            for host in self._cluster.hosts:
                others = ", ".join(each.address for each in self._others(host))
                lost = "numgen random mod 100 < 10 drop"
                rules = [
                    f"in ip saddr {{ {others} }} tcp {end} {POSTGRES} {lost}"
                    for end in ("sport", "dport")
                ]
                stack.enter_context(_rules(host, "lossy", rules))
            rest(fault.length)
        return {"lost": "10 %"}

    def _commitcut(self, fault: Fault) -> Done:
        """The server's answers are dropped, and then its connections are cut: whether what was
        being committed is there nobody can know but by looking."""
        until = time.monotonic() + fault.length
        times = 0
        while time.monotonic() < until:
            host = self._cluster.primary()
            if host is not None:
                balancers = ", ".join(b.address for b in self._cluster.balancers)
                rule = f"out ip daddr {{ {balancers} }} tcp sport {POSTGRES} drop"
                with _rules(host, "answers", [rule]):
                    rest(0.2)
                    for balancer in self._cluster.balancers:
                        with suppress(OSError):  # a mix has killed it
                            balancer.ask(f"shutdown sessions server primary/{host.name}")
                times += 1
            rest(0.6)
        return {"times": times}

    # -- a stranger's statements -------------------------------------------------------------------

    def _cancel(self, fault: Fault) -> Done:
        """What a driver's time-out would send, fast; half of the times the wait that it breaks is
        that for the standby: finding 2."""
        still = fault.pick < 0.5
        with ExitStack() as stack:
            if still:
                for host in self._cluster.hosts:
                    stack.callback(host.still(host.backends("walreceiver")))
            cancelled = strangers.cancel(self._cluster, fault.length)
        return {"cancelled": cancelled, "receivers": "still" if still else "run"}

    def _deadlock(self, fault: Fault) -> Done:
        return {"deadlocks": strangers.deadlock(self._cluster, self._table, fault.length)}

    def _exhausted(self, fault: Fault) -> Done:
        return {"held": strangers.exhaust(self._cluster, fault.length)}

    def _slow_fsync(self, fault: Fault) -> Done:
        """etcd's, and those of PostgreSQL's write-ahead log, on one host."""
        host = self._mostly_the_primary(fault)
        pids = [*host.pids("etcd"), *host.backends("walwriter", "walreceiver", "everpost")]
        delay_us = int(300_000 + 700_000 * fault.pick)
        try:
            with injecting(pids, f"fdatasync:delay_enter={delay_us}"):
                rest(fault.length)
        except AssertionError as error:  # a backend among them ended just then
            return {"missed": str(error)}
        return {"host": host.name, "traced": pids, "delay_ms": delay_us // 1000}

    # -- Everpost's processes, balancers, sinks ----------------------------------------------------

    def _node_kill(self, fault: Fault) -> Done:
        host = self._any(fault)
        killed = host.namespace.signal(signal.SIGKILL, host.pids("everpost"))
        host.wait_gone("everpost")
        rest(fault.length)
        if host.runs_everpost:
            host.start_everpost()
        return {"host": host.name, "killed": killed}

    def _node_pause(self, fault: Fault) -> Done:
        """One that dispatches, past the term of its claims."""
        host = self._any(fault)
        return self._still(host, host.children("dispatch")[:1], fault.length)

    def _leader_pause(self, fault: Fault) -> Done:
        """All of the node that does what one node does for all, past the term of that."""
        name = self._leader()
        host = self._cluster.host(name) if name else self._any(fault)
        return self._still(host, host.pids("everpost"), fault.length)

    def _still(self, host: Host, pids: list[int], seconds: float) -> Done:
        wake = host.still(pids)
        try:
            rest(seconds)
        finally:
            wake()
        return {"host": host.name, "paused": pids}

    def _node_restart(self, fault: Fault) -> Done:
        """As an upgrade does it: asked to end, waited for, started again, by the other version if
        there is one (F41)."""
        host = self._any(fault)
        told = host.end_everpost()
        if self._other_python is not None:
            host.python, self._other_python = self._other_python, host.python
        if host.runs_everpost:
            host.start_everpost()
        rest(fault.length)
        return {"host": host.name, "told": told}

    def _lbkill(self, fault: Fault) -> Done:
        balancer = self._cluster.balancers[fault.pick >= 0.5]
        killed = balancer.kill()
        rest(fault.length)
        balancer.start()
        return {"balancer": balancer.name, "killed": killed}

    def _sink(self, fault: Fault) -> Done:
        sink = self._sinks[int(fault.pick * len(self._sinks))] if self._sinks else None
        if sink is None:
            return {"missed": "there are none"}
        sink.behave(fault.name.removeprefix("sink_"))
        try:
            rest(fault.length)
        finally:
            sink.behave("ok")
        return {"sinks": [sink.name]}


@contextmanager
def _rules(host: Host, name: str, rules: Sequence[str]) -> Iterator[None]:
    host.namespace.rules(name, rules)
    try:
        yield
    finally:
        host.namespace.rules(name, [])


def _pulses(seconds: float, *, on_s: float, off_s: float) -> Iterator[bool]:
    """True and False in turn, each for its time; False at the end."""
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            yield True
            rest(on_s)
            yield False
            rest(off_s)
    finally:
        yield False
