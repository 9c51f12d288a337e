"""A checksum of what names a recipient. Its body is the twin .sql file."""

from everpost.store.migrate import run_twin

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_twin(__file__)
