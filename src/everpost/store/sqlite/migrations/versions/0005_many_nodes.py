"""Nodes, and what a journal accepted before. Its body is the twin .sql file."""

from everpost.store.migrate import run_twin

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_twin(__file__)
