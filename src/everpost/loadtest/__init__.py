"""Tools that look at Everpost from outside: the far end (`sink`) that tests, benchmarks and users
send mail to, and the load test (`run`) that drives a server and measures until mail arrives there.

A stranger on purpose: it knows public surfaces only, and imports nothing above `protocol` and
`net`. Knowledge of the store, of delivery or of composing must not live here.
"""

from everpost.loadtest.behaviour import Behaviour, Rule
from everpost.loadtest.sink import Arrival, Sink, SinkOptions, run_sink

__all__ = ["Arrival", "Behaviour", "Rule", "Sink", "SinkOptions", "run_sink"]
