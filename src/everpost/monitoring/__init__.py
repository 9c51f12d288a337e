"""Turns what rooms emit into what people and load balancers see: metrics and health.

Promises: emitting costs well under a microsecond and never waits; counts of a process that died
stay counted. Nobody imports this room to count (telemetry is for that); no policy on mail is here,
but for `room`: whether the disk has place for more, which the doors ask.
"""

from everpost.monitoring.health import Check, Facts, Health, HealthLimits, Judgement, judge
from everpost.monitoring.metrics import Metrics

__all__ = ["Check", "Facts", "Health", "HealthLimits", "Judgement", "Metrics", "judge"]
