"""Handing mail to relays: an envelope and a way to render go in, one outcome per recipient comes
out, with a record of how it went.

Promises: whatever a far end or the network does is an outcome, never an exception; a definite
outcome is definite, and what cannot be known is in doubt; a relay's own refusal never bounces a
recipient; mail never goes in clear where TLS is required.

Must not live here: stores, composing, retry schedules, sockets. `classify`, `pool`, `course`,
`allowance` and `mx` decide and are pure; `route`, `session`, `handover`, `lane`, `lanes`, `leases`,
`balancer`, `trying`, `site_feedback` and `keeping` do; `carrier` is the face.
"""

from everpost.delivery.allowance import TERM_MS
from everpost.delivery.carrier import Carrier
from everpost.delivery.envelope import CannotRender, Envelope, Render, Report
from everpost.delivery.leases import Leases
from everpost.delivery.route import Reach
from everpost.delivery.shaping import News
from everpost.delivery.timeouts import TOWARDS_MX, Timeouts
from everpost.protocol.smtp.extensions import Extensions

__all__ = [
    "TERM_MS",
    "TOWARDS_MX",
    "CannotRender",
    "Carrier",
    "Envelope",
    "Extensions",
    "Leases",
    "News",
    "Reach",
    "Render",
    "Report",
    "Timeouts",
]
