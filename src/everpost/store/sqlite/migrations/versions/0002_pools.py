"""Pools, routes, weights, notes and shares. Its body is the twin .sql file."""

from everpost.store.migrate import run_twin

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    run_twin(__file__)
