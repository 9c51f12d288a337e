"""The embedded engine: SQLite through apsw, one file that several processes of one host share.

Promises: what `accept` and `settle` acknowledged survives a power cut (WAL with synchronous=FULL,
checked at every start); a reader never holds up a writer, nor a slow list the event loop; one
process that dies, stops or meets a full disk leaves the others' data whole. Policy must not live
here, nor any knowledge of HTTP, SMTP or what is inside sealed content.
"""

from everpost.store.sqlite.auditing import Auditor
from everpost.store.sqlite.store import SqliteStore

__all__ = ["Auditor", "SqliteStore"]
