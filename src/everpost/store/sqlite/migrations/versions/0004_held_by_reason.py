"""What is held, by its reason. Its body is the twin .sql file."""

from everpost.store.migrate import run_twin

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_twin(__file__)
