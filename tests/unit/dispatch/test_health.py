"""What processes tell each other of relays: all of it, soon, once, and nothing while all is still.
Several stores on one database are several processes."""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from everpost.clock import SystemClock
from everpost.delivery.probe import Probed
from everpost.dispatch.health import CircuitNews, Exchange, Reports
from everpost.dispatch.prober import Prober
from everpost.ids import IdMaker, text
from everpost.model.health import CircuitState, Health, Standing
from everpost.model.outcome import Deferred, Phase, Reply, Speaker
from everpost.model.relay import Relay
from everpost.store.interface import Note, StoreUnavailable
from everpost.store.sqlite import SqliteStore
from tests.support.carrying import run

CLOCK = SystemClock()
IDS = IdMaker(CLOCK.now)
RELAY = Relay(id=IDS(), name="one", host="mx.test")
REFUSAL = Deferred("later", Phase.MAIL, Speaker.RELAY, Reply(451, "no", "4.3.0"), relay_fault=True)


def _open(**facts: Any) -> Health:
    since = CLOCK.now()
    return Health(relay=RELAY.id, state=CircuitState.OPEN, since=since, **{"why": "dead", **facts})


class Memory:
    """A carrier's face towards its neighbours: `found` is what it finds out next, `heard` what the
    others told it; a probe finds `refusal` and opens the circuit by it."""

    def __init__(self) -> None:
        self.found: list[Health] = []
        self.heard: list[Health] = []
        self.stands: list[Standing] = []
        self.refusal: Deferred | None = None
        self.probes: list[str] = []
        self.until = 0
        self.probing: asyncio.Event | None = None

    def news(self) -> Sequence[Health]:
        found, self.found = self.found, []
        return found

    def learn(self, known: Iterable[Health]) -> None:
        self.heard.extend(known)

    def standing(self) -> Sequence[Standing]:
        return list(self.stands)

    async def probe(self, relay: bytes, sender: str) -> Probed | None:
        self.probes.append(sender)
        if self.probing is not None:
            await self.probing.wait()
        if self.refusal is not None:
            self.found.append(_open(until=CLOCK.now() + self.until))
        return Probed(self.refusal, 0.01)


class Process:
    """A store, an exchange and, with `every_s`, a prober, as one dispatch process has them."""

    def __init__(self, folder: Path, *, site: str = "here", **prober: Any) -> None:
        self.id = IDS()
        self.site = site
        self.store = SqliteStore(folder / "s.db", clock=CLOCK)
        self.memory = Memory()
        self.circuits = CircuitNews(self.memory, site=site)
        self.relays: list[Relay] = [RELAY]
        self.exchange = Exchange(
            owner=self.id,
            store=self.store,
            clock=CLOCK,
            topics=(self.circuits, Reports(self.id, self.memory.standing, site=site)),
            look_s=0.02,
        )
        self._options = prober
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "Process":
        await self.store.open()
        self._tasks.append(asyncio.create_task(self.exchange.run()))
        if self._options:
            self._tasks.append(asyncio.create_task(self._prober().run()))
        return self

    def _prober(self) -> Prober:
        return Prober(
            owner=self.id,
            store=self.store,
            carrier=self.memory,
            exchange=self.exchange,
            relays=lambda: self.relays,
            domains=tuple,
            known=self.circuits.known,
            clock=CLOCK,
            rng=random.Random(1),
            round_s=0.02,
            site=self.site,
            **self._options,
        )

    async def __aexit__(self, *_: object) -> None:
        await self.end()
        await self.store.close()

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def notes(self, kind: str) -> Sequence[Note]:
        return (await self.store.noted((kind,)))[1]


async def until(done: Callable[[], bool]) -> None:
    """Let the others run until it is so; `run` bounds it."""
    while not done():
        await asyncio.sleep(0)


# --- notes ----------------------------------------------------------------------------------------


def test_what_one_process_finds_out_all_others_learn_and_it_does_not_learn_it_back(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with Process(tmp_path) as one, Process(tmp_path) as two, Process(tmp_path) as three:
            dead = _open(until=CLOCK.now() + 5000, phase="connect", speaker="relay", ejections=2)
            one.memory.found = [dead]
            one.exchange.wake()
            await until(lambda: bool(two.memory.heard and three.memory.heard))
            assert two.memory.heard == three.memory.heard == [dead]
            assert two.circuits.known == one.circuits.known == {RELAY.id: dead}
            back = Health(relay=RELAY.id, state=CircuitState.HALF_OPEN, since=CLOCK.now())
            two.memory.found = [back]
            await until(lambda: bool(one.memory.heard))
            assert one.memory.heard == [back]
            assert one.circuits.known[RELAY.id] == back
            assert two.memory.heard == [dead]

    run("uvloop", main())


def test_a_process_that_starts_learns_what_stands(tmp_path: Path) -> None:
    async def main() -> None:
        async with Process(tmp_path) as one:
            dead = _open(until=CLOCK.now() + 5000)
            one.memory.found = [dead]
            await until(lambda: bool(one.circuits.known))
            await until_written(one, "health")
            async with Process(tmp_path) as two:
                await until(lambda: bool(two.memory.heard))
                assert two.memory.heard == [dead]

    run("asyncio", main())


def test_what_was_said_of_a_relay_before_it_was_known_here_is_said_again() -> None:
    memory = Memory()
    circuits = CircuitNews(memory, site="here")
    dead, own = _open(), Health(relay=IDS(), state=CircuitState.CLOSED)
    circuits.learn([Note("health", text(RELAY.id), msgspec.to_builtins(dead), 0)])
    memory.found = [own]
    circuits.news(CLOCK.now())
    memory.heard.clear()
    circuits.remind()
    assert memory.heard == [dead, own]


async def until_written(process: Process, kind: str) -> Sequence[Note]:
    while not (notes := await process.notes(kind)):
        await asyncio.sleep(0)
    return notes


def test_nothing_is_written_while_nothing_changes(tmp_path: Path) -> None:
    async def main() -> None:
        async with Process(tmp_path) as one, Process(tmp_path) as two:
            one.memory.found = [_open()]
            await until(lambda: bool(two.memory.heard))
            version, _ = await one.store.noted(("health",))
            heard = asyncio.Event()
            looks = 0

            class Counting:
                kinds: Sequence[str] = ()

                def news(self, now: int) -> Sequence[Note]:
                    nonlocal looks
                    looks += 1
                    if looks == 10:
                        heard.set()
                    return ()

                def learn(self, notes: Sequence[Note]) -> None:
                    raise AssertionError(notes)

            watcher = Exchange(
                owner=IDS(), store=two.store, clock=CLOCK, topics=(Counting(),), look_s=0.01
            )
            task = asyncio.create_task(watcher.run())
            await heard.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert (await one.store.noted(("health",)))[0] == version

    run("uvloop", main())


def test_a_store_that_is_away_delays_news_and_loses_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with Process(tmp_path) as one, Process(tmp_path) as two:
            away, write = True, one.store.note
            refused = asyncio.Event()

            async def note(notes: Sequence[Note]) -> None:
                if away:
                    refused.set()
                    raise StoreUnavailable("full")
                await write(notes)

            one.store.note = note  # type: ignore[method-assign]
            first = _open(why="first")
            one.memory.found = [first]
            await refused.wait()
            last = msgspec.structs.replace(first, why="last")
            one.memory.found = [last]
            away = False
            await until(lambda: bool(two.memory.heard))
            assert two.memory.heard == [last]

    run("uvloop", main())


def test_a_note_of_another_release_is_passed_over(tmp_path: Path) -> None:
    async def main() -> None:
        async with Process(tmp_path) as one, Process(tmp_path) as two:
            strange = Note("health", text(IDS()), {"state": "sideways"}, CLOCK.now() + 60_000)
            await one.store.note([strange])
            known = _open()
            one.memory.found = [known]
            await until(lambda: bool(two.memory.heard))
            assert two.memory.heard == [known]

    run("uvloop", main())


def test_a_relay_that_one_site_cannot_reach_is_taken_from_the_others(tmp_path: Path) -> None:
    """What a node of another site finds out is for people; both views stand beside each other."""

    async def main() -> None:
        async with (
            Process(tmp_path, site="north") as north,
            Process(tmp_path, site="south") as south,
            Process(tmp_path, site="south") as beside,
        ):
            dead = _open(why="no way from here")
            south.memory.found = [dead]
            south.exchange.wake()
            await until(lambda: bool(beside.memory.heard))
            fine = Health(relay=RELAY.id, state=CircuitState.CLOSED, since=CLOCK.now())
            north.memory.found = [fine]
            north.exchange.wake()
            while len(notes := await north.notes("health")) < 2:
                await asyncio.sleep(0)
            views = {note.key: note.data["state"] for note in notes}
            id_ = text(RELAY.id)
            assert views == {f"{id_}/north": "closed", f"{id_}/south": "open"}
            own = _open(why="another one", until=CLOCK.now() + 1000)
            beside.memory.found = [own]
            beside.exchange.wake()
            await until(lambda: bool(south.memory.heard))
            assert north.memory.heard == []
            assert (south.memory.heard, beside.memory.heard) == ([own], [dead])
            assert north.circuits.known == {RELAY.id: fine}

    run("uvloop", main())


# --- reports --------------------------------------------------------------------------------------


def test_a_report_is_written_while_something_changes_and_not_otherwise() -> None:
    stands: list[Standing] = [Standing(relay=RELAY.id)]
    reports = Reports(IDS(), lambda: stands, site="here")
    assert not reports.news(1_000_000)  # nothing was ever sent
    stands[:] = [Standing(relay=RELAY.id, tried=3, worked=2, sessions=1)]
    assert not reports.news(1_000_500)
    (note,) = reports.news(1_002_000)
    assert (note.kind, note.expires_at) == ("report", 1_017_000)
    assert msgspec.convert(note.data["relays"], list[Standing]) == stands
    assert note.data["at"] == 1_002_000
    assert not reports.news(1_004_000)
    (again,) = reports.news(1_012_000)  # before it ends, since a connection is still open
    assert again.data["relays"] == note.data["relays"]
    stands[:] = [Standing(relay=RELAY.id)]
    (last,) = reports.news(1_014_000)
    assert last.data["relays"] == []
    assert not any(reports.news(at) for at in range(1_016_000, 1_060_000, 2_000))


def test_a_clock_that_was_set_back_does_not_stop_reports() -> None:
    stands = [Standing(relay=RELAY.id, tried=1)]
    reports = Reports(IDS(), lambda: stands, site="here")
    assert reports.news(10_000_000)
    stands[:] = [Standing(relay=RELAY.id, tried=2)]
    assert reports.news(5_000_000)


# --- the prober -----------------------------------------------------------------------------------


def _probes(processes: Sequence[Process]) -> int:
    return sum(len(process.memory.probes) for process in processes)


def test_three_processes_make_one_probe_an_interval(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Process(tmp_path, every_s=0.2) as one,
            Process(tmp_path, every_s=0.2) as two,
            Process(tmp_path, every_s=0.2) as three,
        ):
            all_ = (one, two, three)
            began = CLOCK.monotonic()
            await until(lambda: _probes(all_) >= 6)
            assert CLOCK.monotonic() - began >= 6 * 0.15
            assert len([p for p in all_ if p.memory.probes]) == 1
            notes = await until_written(one, "probe")
            assert [(n.key, n.data["ok"]) for n in notes] == [(f"{text(RELAY.id)}/here", True)]
            assert notes[0].data["next"] >= notes[0].data["at"] + 150

    run("uvloop", main())


def test_what_a_probe_finds_is_known_to_all_and_the_next_one_waits_for_its_time(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with Process(tmp_path, every_s=0.05) as one, Process(tmp_path, every_s=0.05) as two:
            for process in (one, two):
                process.memory.refusal, process.memory.until = REFUSAL, 60_000
            await until(lambda: bool(one.memory.heard or two.memory.heard))
            (note,) = await until_written(one, "probe")
            assert (note.data["ok"], note.data["phase"]) == (False, "mail")
            assert note.data["refusal"] == "451 4.3.0 no"
            assert note.data["next"] >= note.data["at"] + 60_000 - 100
            assert _probes((one, two)) == 1

    run("uvloop", main())


def test_the_process_that_probes_dies_and_another_takes_over(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            Process(tmp_path, every_s=0.05, lease_s=0.6) as one,
            Process(tmp_path, every_s=0.05, lease_s=0.6) as two,
        ):
            await until(lambda: bool(one.memory.probes or two.memory.probes))
            dead, heir = (one, two) if one.memory.probes else (two, one)
            assert not heir.memory.probes

            async def nothing(name: str, owner: bytes) -> None:
                """As a process that was killed: nothing is given back."""

            dead.store.yield_lead = nothing  # type: ignore[method-assign]
            died = CLOCK.monotonic()
            await dead.end()
            await until(lambda: bool(heir.memory.probes))
            assert CLOCK.monotonic() - died < 2 * 0.6

    run("uvloop", main())


def test_a_process_that_ends_hands_over_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with Process(tmp_path, every_s=0.05, lease_s=600.0) as one:
            await until(lambda: bool(one.memory.probes))
            one.memory.probing = asyncio.Event()  # its next probe hangs: that must not hold it up
            before = len(one.memory.probes)
            await until(lambda: len(one.memory.probes) > before)
            await one.end()
            async with Process(tmp_path, every_s=0.05, lease_s=600.0) as two:
                await until(lambda: bool(two.memory.probes))

    run("uvloop", main())


def test_a_relay_that_carries_mail_is_not_probed(tmp_path: Path) -> None:
    async def main() -> None:
        idle = Relay(id=IDS(), name="two", host="mx.test")
        async with Process(tmp_path, every_s=1.0) as one, Process(tmp_path) as two:
            one.relays = [RELAY, idle]
            ends = CLOCK.now() + 60_000
            at = CLOCK.now() + 30_000  # it goes on working for longer than this test looks
            busy = msgspec.to_builtins([Standing(relay=RELAY.id, tried=9, worked_at=at)])
            await two.store.note([Note("report", text(two.id), {"at": at, "relays": busy}, ends)])
            await until_written(one, "probe")
            notes = await one.notes("probe")
            assert [note.key for note in notes] == [f"{text(idle.id)}/here"]

    run("uvloop", main())


def test_a_report_of_before_the_clock_was_set_back_stops_probes(tmp_path: Path) -> None:
    """I22: it says that all connections are in use, and ends in two hours."""

    async def main() -> None:
        async with Process(tmp_path) as two, Process(tmp_path, every_s=0.05) as one:
            full = msgspec.to_builtins([Standing(relay=RELAY.id, sessions=RELAY.connections)])
            at = CLOCK.now() + 7_200_000
            report = Note("report", text(two.id), {"at": at, "relays": full}, at + 15_000)
            await two.store.note([report])
            await until(lambda: len(one.memory.probes) >= 3)

    run("uvloop", main())


def test_one_site_probes_for_another(tmp_path: Path) -> None:
    """Each has its own prober, whom mail that another site sends excuses from nothing."""

    async def main() -> None:
        async with Process(tmp_path, site="north") as busy:
            at = CLOCK.now() + 30_000
            works = msgspec.to_builtins([Standing(relay=RELAY.id, tried=9, worked_at=at)])
            said = {"at": at, "relays": works, "site": "north"}
            await busy.store.note([Note("report", text(busy.id), said, at + 30_000)])
            async with (
                Process(tmp_path, site="north", every_s=0.5) as north,
                Process(tmp_path, site="south", every_s=0.5) as south,
            ):
                await until(lambda: len(south.memory.probes) > 1)
                assert north.memory.probes == []
                notes = await until_written(south, "probe")
                assert {note.data["site"] for note in notes} == {"south"}
                for site in ("north", "south"):
                    assert await south.store.lead(f"probes/{site}", IDS(), lease_ms=1) is None

    run("uvloop", main())


def test_without_a_relay_to_probe_nobody_holds_the_lease(tmp_path: Path) -> None:
    async def main() -> None:
        async with Process(tmp_path, every_s=0.05, lease_s=600.0) as one:
            await until(lambda: bool(one.memory.probes))
            one.relays = []
            while await one.store.lead("probes/here", IDS(), lease_ms=1) is None:
                await asyncio.sleep(0)

    run("uvloop", main())
