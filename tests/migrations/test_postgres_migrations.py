"""The order of PostgreSQL's schema revisions."""

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

import everpost.store.postgres
from everpost.store.migrate import BASE, HEADS, render

MIGRATIONS = Path(everpost.store.postgres.__file__).parent / "migrations"


def test_the_head_in_the_code_is_alembics() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [HEADS["postgres"]]
    twins = {p.stem for p in (MIGRATIONS / "versions").glob("*.sql")}
    assert {p.stem for p in (MIGRATIONS / "versions").glob("[0-9]*.py")} == twins
    assert len(list(script.walk_revisions())) == len(twins)


def test_the_sql_is_the_twin_file_word_for_word() -> None:
    twin = (MIGRATIONS / "versions" / "0001_first_schema.sql").read_text()
    assert twin.rstrip() in render("postgres", BASE)
