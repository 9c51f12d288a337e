"""What waits to start, and in which order it does.

Transactional mail first; then projects in turn by weight, a project's streams in turn by weight, a
stream's destinations in turn. Each pool has its own room, so that one that is full or sick holds up
nobody else. Who may take a slot is `fairness`' word. No I/O, no clock.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence

from everpost.dispatch.fairness import broadcast_part, fits, is_greedy, left_for, may_take
from everpost.dispatch.work import Work

__all__ = ["Room", "Waiting"]

Room = tuple[int, int | None]
"""Of a pool: slots that are free now, and the most that one destination may have in it."""

Lane = deque[Work]


class _Group:
    """Projects, a project's streams, or a stream's lanes, in turn. `left`: how often it is served
    yet before the next one's turn. `parked`: children that cannot start anything now."""

    __slots__ = ("children", "left", "parked", "weight")

    def __init__(self, weight: int = 1) -> None:
        self.children: OrderedDict[str, _Group | Lane] = OrderedDict()
        self.weight = self.left = weight
        self.parked = 0


class _Pool:
    """One pool's share of what is started and of what waits."""

    __slots__ = (
        "at", "broadcast", "carrying", "groups", "on_their_way", "routes", "waiting", "waits",
    )  # fmt: skip

    def __init__(self) -> None:
        self.carrying = 0
        self.on_their_way = 0
        self.broadcast = 0
        self.routes: dict[str, int] = {}
        self.groups: dict[str, int] = {}
        self.at: dict[str, int] = {}
        """What is carried by route, by project and stream, and by destination."""
        self.waiting = (_Group(), _Group())
        self.waits = [0, 0]
        """Transactional, broadcast: and how many those are."""

    @property
    def empty(self) -> bool:
        return not (self.carrying or any(self.waits))


class Waiting:
    """`window_bytes`: memory that large messages may take while they are carried."""

    def __init__(self, *, window_bytes: int) -> None:
        self._window_bytes = window_bytes
        self._pools: dict[str, _Pool] = {}
        self._pinned: list[Work] = []
        self._bytes = 0
        self._carried_bytes: dict[str, int] = {}
        self._parked: list[tuple[_Group, str, _Group | Lane]] = []
        self._large_may = True

    def queue(self, work: Work, *, weights: tuple[int, int] = (1, 1)) -> None:
        """`weights` of its project and of its stream. What is pinned to a relay waits for no
        pool."""
        if work.claimed.only is not None:
            self._pinned.append(work)
            return
        pool = self._pools.get(work.pool)
        if pool is None:
            pool = self._pools[work.pool] = _Pool()
        project = _child(pool.waiting[work.broadcast], work.project, weights[0])
        stream = _child(project, work.stream, weights[1])
        lane = stream.children.get(work.route)
        if lane is None:
            lane = stream.children[work.route] = deque()
        assert isinstance(lane, deque)
        lane.append(work)
        pool.waits[work.broadcast] += 1

    def startable(self, room: Callable[[str], Room]) -> Sequence[Work]:
        """Work that may start while pools have `room`: none beyond the fair share of its route,
        stream and project, broadcast mail only up to its part, no destination beyond what it may
        have. Each that is taken counts as carried at once.

        A large message that finds no room in memory is the next large one to start, or lighter ones
        would pass it for ever; small ones do not wait for it.
        """
        started, self._pinned = self._pinned, []
        for work in started:
            self._start(work, None)
        self._large_may = True
        for broadcast in (False, True):
            for name, pool in self._pools.items():
                if pool.waits[broadcast]:
                    free, most = room(name)
                    capacity = pool.carrying + max(free - pool.on_their_way, 0)
                    self._start_of(pool, capacity, most, broadcast=broadcast, started=started)
        return started

    def _start_of(
        self,
        pool: _Pool,
        capacity: int,
        most: int | None,
        *,
        broadcast: bool,
        started: list[Work],
    ) -> None:
        group = pool.waiting[broadcast]
        part = broadcast_part(capacity) if broadcast else capacity
        while (
            pool.waits[broadcast]
            and pool.carrying < capacity
            and not (broadcast and pool.broadcast >= part)
        ):
            work = self._next(group, pool, capacity - pool.carrying, most)
            if work is None:
                break
            pool.waits[broadcast] -= 1
            self._start(work, pool)
            started.append(work)
        if self._parked:
            self._unpark()

    def _next(self, group: _Group, pool: _Pool, left: float, most: int | None) -> Work | None:
        """The next of a group, to which so many slots are left, taken out. Who cannot start
        anything is out of the way until this round is over, and keeps its place."""
        children = group.children
        while children:
            name = next(iter(children))
            child = children[name]
            if isinstance(child, _Group):
                held = pool.groups.get(name)
                for_it = left_for(held, left) if held else left
                work = self._next(child, pool, for_it, most) if for_it > 0 else None
                if work is not None:
                    if child.left > 1:
                        child.left -= 1
                    else:
                        child.left = child.weight
                        children.move_to_end(name)
                    return work
                if not (child.children or child.parked):
                    del children[name]
                    continue
            elif self._may_start(child[0], pool, left, most):
                work = child.popleft()
                if child:
                    children.move_to_end(name)
                else:
                    del children[name]
                return work
            del children[name]
            group.parked += 1
            self._parked.append((group, name, child))
        return None

    def _may_start(self, work: Work, pool: _Pool, left: float, most: int | None) -> bool:
        if most is not None and pool.at.get(work.destination, 0) >= most:
            return False
        return may_take(pool.routes.get(work.route, 0), left) and (
            not work.weight or self._fits(work)
        )

    def _unpark(self) -> None:
        while self._parked:
            group, name, child = self._parked.pop()
            group.children[name] = child
            group.children.move_to_end(name, last=False)
            group.parked -= 1

    def _fits(self, work: Work) -> bool:
        if not self._large_may:
            return False
        held = self._carried_bytes.get(work.route, 0)
        if is_greedy(work.weight, held, held=self._bytes, capacity=self._window_bytes):
            return False
        self._large_may = fits(work.weight, held=self._bytes, capacity=self._window_bytes)
        return self._large_may

    def _start(self, work: Work, pool: _Pool | None) -> None:
        if pool is not None:
            work.on_its_way = True
            pool.on_their_way += 1
            pool.carrying += 1
            pool.broadcast += work.broadcast
            _add(pool.at, work.destination)
            _add(pool.routes, work.route)
            _add(pool.groups, work.stream)
            _add(pool.groups, work.project)
        if work.weight:
            self._bytes += work.weight
            _add(self._carried_bytes, work.route, work.weight)

    def arrives(self, work: Work) -> None:
        """Delivery is told of it now, and counts its slot itself from here on."""
        if work.on_its_way:
            work.on_its_way = False
            self._pools[work.pool].on_their_way -= 1

    def carried(self, work: Work) -> None:
        """Its slot and its memory are free again."""
        self.arrives(work)
        if work.claimed.only is None:
            pool = self._pools[work.pool]
            pool.carrying -= 1
            pool.broadcast -= work.broadcast
            _take(pool.at, work.destination)
            _take(pool.routes, work.route)
            _take(pool.groups, work.stream)
            _take(pool.groups, work.project)
            if pool.empty:
                del self._pools[work.pool]
        if work.weight:
            self._bytes -= work.weight
            _take(self._carried_bytes, work.route, work.weight)

    def take_back(self) -> Sequence[Work]:
        """Everything that waits, taken out of the order of starting."""
        waiting, self._pinned = self._pinned, []
        for pool in self._pools.values():
            for group in pool.waiting:
                waiting += _all(group)
            pool.waiting, pool.waits = (_Group(), _Group()), [0, 0]
        self._pools = {name: pool for name, pool in self._pools.items() if not pool.empty}
        return waiting


def _child(group: _Group, name: str, weight: int) -> _Group:
    child = group.children.get(name)
    if child is None:
        child = group.children[name] = _Group(weight)
    assert isinstance(child, _Group)
    return child


def _all(group: _Group) -> Iterator[Work]:
    for child in group.children.values():
        if isinstance(child, _Group):
            yield from _all(child)
        else:
            yield from child


def _add(counts: dict[str, int], name: str, n: int = 1) -> None:
    counts[name] = counts.get(name, 0) + n


def _take(counts: dict[str, int], name: str, n: int = 1) -> None:
    left = counts[name] - n
    if left > 0:
        counts[name] = left
    else:
        del counts[name]
