"""The first schema. Its body is the twin .sql file."""

from everpost.store.migrate import run_twin

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_twin(__file__)
