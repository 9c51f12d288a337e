"""The PostgreSQL engine's named queries: all are used, and none goes by another name than the same
question of the embedded engine's."""

from pathlib import Path

import everpost.store.postgres
from everpost.store import sqlite
from everpost.store.queries import load

POSTGRES = Path(everpost.store.postgres.__file__).parent
SQLITE = Path(sqlite.__file__).parent


def test_a_query_that_nobody_uses_is_noticed() -> None:
    used = "".join(path.read_text() for path in POSTGRES.glob("*.py"))
    unused = [name for name in load(POSTGRES / "sql") if f'"{name}"' not in used]
    assert [name for name in unused if not name.startswith(("put_", "drop_"))] == []


ASKED_OTHERWISE = {
    # numbers that are none, text that is none, a log whose tail must not come back
    "mend_claimed_numbers", "mend_numbers", "overwrite_tail", "queued_beyond_ascii",
    # what is due is looked for, chosen and taken by one statement each
    "has_come_due", "rows_of_lanes", "set_claimed",
    # rows have no numbers of their own
    "audit_last_message", "audit_message_at",
}  # fmt: skip


def test_a_question_has_another_name_in_each_engine() -> None:
    unknown = load(SQLITE / "sql").keys() - load(POSTGRES / "sql").keys()
    assert unknown == ASKED_OTHERWISE
