"""What projects and streams demand of an acceptance. Its body is the twin .sql file."""

from everpost.store.migrate import run_twin

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_twin(__file__)
