"""The accept journal: mail is accepted although no database answers.

A node writes what it then accepts into a file of its own, flushed before the answer, and leaves a
copy with one peer where one answers in time. When the database is back, both hand it over, under
the ids that were answered; what is there already stays as it is, so that it does not matter who
comes first, nor how often.

Promises: what was answered `journal` survives the death of the process and of the host, `journal+
peer` the loss of the host; a key is answered as it was before; nothing is journalled for a caller
who demanded more. Must not live here: SQL (`store.sqlite.journal` is the file), checks of mail
(intake), what an answer looks like (api).
"""

from everpost.journal.accepting import JournalledAccepting
from everpost.journal.book import Book, Journal, JournalLimits
from everpost.journal.copying import Peers
from everpost.journal.drain import Drain
from everpost.journal.entry import Entry
from everpost.journal.parting import part
from everpost.journal.peers import PeerDoor
from everpost.journal.roster import Roster
from everpost.journal.shown import Lookup

__all__ = [
    "Book",
    "Drain",
    "Entry",
    "Journal",
    "JournalLimits",
    "JournalledAccepting",
    "Lookup",
    "PeerDoor",
    "Peers",
    "Roster",
    "part",
]
