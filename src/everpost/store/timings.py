"""What every engine measures of its write transactions, under the same names."""

from typing import Final

from everpost import telemetry

__all__ = ["ALARM", "BATCH", "COMMIT", "FAULTS", "SLOW", "WAIT", "WRITE"]

COMMIT = telemetry.histogram(
    "everpost_store_commit_seconds", "One write transaction, from BEGIN to after COMMIT"
)
WAIT = telemetry.histogram(
    "everpost_store_wait_seconds", "From handing in a verb to BEGIN of its transaction", ("verb",)
)
WRITE = telemetry.histogram(
    "everpost_store_write_seconds", "From BEGIN of a verb's transaction to its answer", ("verb",)
)
BATCH = telemetry.histogram(
    "everpost_store_batch_verbs",
    "Store verbs that shared one commit",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
FAULTS = telemetry.counter(
    "everpost_store_faults_total",
    "Transactions that storage refused, by the engine's name for it",
    ("error",),
)
ALARM: Final = "store_unavailable"
SLOW: Final = "store_slow"
