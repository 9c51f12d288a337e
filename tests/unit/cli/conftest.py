"""A server on the operator's socket of a data directory, and the command line to talk to it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from everpost.cli.root import root
from tests.support.tiny_api import TinyApi


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tester's shell says must not matter."""
    for name in ("EVERPOST_URL", "EVERPOST_API_KEY", "EVERPOST_NODE_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def api(data: Path) -> Iterator[TinyApi]:
    with TinyApi(data / "run" / "admin.sock") as server:
        yield server


@pytest.fixture
def run() -> Callable[..., Result]:
    """`run("keys", "list", "--data", data)`."""

    def invoke(*args: object, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(root, [str(arg) for arg in args], input=stdin)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke
