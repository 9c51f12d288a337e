"""How a store of several nodes stands, for people: gauges, and two alarms."""

from everpost import telemetry
from everpost.store.cluster import StoreState

__all__ = ["StandingView"]

_STANDBYS = telemetry.gauge(
    "everpost_store_standbys", "Synchronous standbys of the database that are connected"
)
_TIMELINE = telemetry.gauge(
    "everpost_store_timeline", "The database's timeline; it grows with every failover"
)
_DURABLE = telemetry.gauge(
    "everpost_store_durable", "1 while an answer of success means what the settings say"
)


class StandingView:
    """What was shown before counts: a standby less than there were is one copy short."""

    def __init__(self) -> None:
        self._most = 0

    def show(self, state: StoreState) -> None:
        """Set the gauges, raise or clear the alarms. Of a database that is away nothing is said
        but that it is not durable."""
        _STANDBYS.set(state.standbys)
        _TIMELINE.set(state.timeline)
        _DURABLE.set(int(state.durable))
        unsafe = state.reachable and not state.durable
        _stand("store_not_durable", stands=unsafe, problems=state.problems)
        if not state.reachable:
            return
        self._most = max(self._most, state.standbys)
        short = state.durable and state.standbys < self._most
        _stand("store_one_copy_short", stands=short, standbys=state.standbys, were=self._most)


def _stand(name: str, *, stands: bool, **fields: object) -> None:
    alarm = telemetry.alarm(name)
    if stands:
        alarm.raise_(**fields)
    else:
        alarm.clear()
