"""Schema revisions: Alembic orders them and renders them to SQL, the engine's own driver runs it.

Alembic and SQLAlchemy are heavy, and no service needs them once its schema is current: engines
compare their schema's revision with `HEADS`, and only when it differs is this module run as a
short-lived process (`render`), whose output is the SQL to run in one transaction.

Revisions live in `<engine>/migrations/versions`: a `.py` file that names itself and its
predecessor, and a `.sql` twin that is its body. They expand first and contract in a later release,
so that the previous release runs on the new schema.
"""

import io
import subprocess
import sys
from pathlib import Path

__all__ = ["BASE", "HEADS", "VERSION_TABLE", "MigrationError", "render", "run_twin"]

HEADS = {"sqlite": "0006", "postgres": "0001"}
"""The newest revision by engine; a test compares it with Alembic's own answer."""

BASE = "base"
"""Alembic's word for a database without any schema."""

VERSION_TABLE = "alembic_version"
_LIMIT_S = 60.0


class MigrationError(Exception):
    """The migrations could not be rendered."""


def render(engine: str, current: str) -> str:
    """The SQL that brings a schema from revision `current` to its head, made in a process of
    its own.

    Raises MigrationError, for example when `current` is not a revision of this release.
    """
    try:
        done = subprocess.run(  # noqa: S603  our own module, by our own interpreter
            [sys.executable, "-m", __name__, engine, current],
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MigrationError(f"rendering the migrations took longer than {_LIMIT_S} s") from error
    if done.returncode != 0:
        raise MigrationError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return done.stdout


def run_twin(revision_file: str) -> None:
    """In a revision's `upgrade`: emit the SQL file of the same name."""
    from alembic import op
    from sqlalchemy import text

    sql = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    # A colon would begin a bound parameter of SQLAlchemy's.
    op.execute(text(sql.rstrip().removesuffix(";").replace(":", r"\:")))


def _render_here(engine: str, current: str) -> str:
    from alembic import command
    from alembic.config import Config

    folder = Path(__file__).parent / engine / "migrations"
    output = io.StringIO()
    config = Config(output_buffer=output)
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    command.upgrade(config, f"{current}:{HEADS[engine]}", sql=True)
    return output.getvalue()


if __name__ == "__main__":
    sys.stdout.write(_render_here(*sys.argv[1:3]))
