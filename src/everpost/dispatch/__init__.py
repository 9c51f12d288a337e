"""Claim, carry, settle: the one room that moves a queued recipient towards its end.

Promises: a recipient in hand is either settled, handed back, or found by recovery through its claim
and the dot log; what may have been delivered is never tried again without being recorded as in
doubt. Talking to mail servers must not live here (delivery), nor SQL (store). `retry`, `settle`,
`assigning`, `fairness`, `hands`, `waiting` and `probing` decide and are pure; `loop`, `rendering`,
`health` and `prober` do.
"""

from everpost.dispatch.dots import DotLog, Step, read_dots
from everpost.dispatch.health import CircuitNews, Exchange, Reports
from everpost.dispatch.leasing import Leasing
from everpost.dispatch.loop import Dispatcher, DispatchLimits
from everpost.dispatch.prober import Prober
from everpost.dispatch.rendering import Renderer
from everpost.dispatch.retry import RetryPolicy, retry_at
from everpost.dispatch.sandbox import Sandbox
from everpost.dispatch.settle import abandoned, damaged, decide, doubted, returned
from everpost.dispatch.site_news import SiteNews

__all__ = [
    "CircuitNews",
    "DispatchLimits",
    "Dispatcher",
    "DotLog",
    "Exchange",
    "Leasing",
    "Prober",
    "Renderer",
    "Reports",
    "RetryPolicy",
    "Sandbox",
    "SiteNews",
    "Step",
    "abandoned",
    "damaged",
    "decide",
    "doubted",
    "read_dots",
    "retry_at",
    "returned",
]
