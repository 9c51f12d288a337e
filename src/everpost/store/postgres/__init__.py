"""The engine for many nodes: PostgreSQL 15 or later, through psycopg.

Promises: what `store.interface` promises, with no state in a session, so that a pool in transaction
mode may stand between; an answer of success means what the primary and its synchronous standbys
have on disk, and a COMMIT is never cancelled.
"""

from everpost.store.postgres.auditing import Auditor
from everpost.store.postgres.connection import Address
from everpost.store.postgres.store import PostgresStore

__all__ = ["Address", "Auditor", "PostgresStore"]
