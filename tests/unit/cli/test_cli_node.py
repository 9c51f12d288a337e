"""Commands that run on the node itself: serve, run, config, db, sink."""

import json
import smtplib
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from click.testing import Result

from everpost.cli import run as run_command
from everpost.cli import serve as serve_command
from everpost.config import Settings
from everpost.model.message import Durability

Run = Callable[..., Result]


def test_options_of_serve_win(run: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def serve(settings: Settings, origin: object) -> int:
        seen.append(settings)
        return 4

    monkeypatch.setattr(serve_command, "serve", serve)
    monkeypatch.setenv("EVERPOST_HTTP_LISTEN", "127.0.0.1:1")
    monkeypatch.setenv("EVERPOST_NODE_SITE", "north")
    result = run(
        "serve", "--data", data, "--listen", "127.0.0.1:0", "--admin-listen", "",
        "--durability", "relaxed", "--processes", "3",
    )  # fmt: skip
    assert result.exit_code == 4
    found = seen[0]
    assert (found.node.data, found.node.site, found.node.processes) == (data, "north", 3)
    assert (found.http.listen, found.http.admin_listen) == ("127.0.0.1:0", "")
    assert found.store.durability is Durability.RELAXED


def test_a_wrong_setting_stops_the_start(run: Run, data: Path) -> None:
    data.mkdir()
    (data / "everpost.toml").write_text("[http]\nlisen = 1\n[node]\nprocesses = -1\n")
    result = run("serve", "--data", data)
    assert result.exit_code == 2
    assert "unknown key http.lisen (did you mean http.listen?)" in result.stderr
    assert "node.processes: expected a whole number from 0" in result.stderr


def test_run_passes_on_what_the_supervisor_gave(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []

    def roles(
        settings: Settings,
        names: Sequence[str],
        inherited: Mapping[str, int],
        pipe: int | None,
        name: str | None,
    ) -> int:
        seen.extend((settings.node.data, list(names), dict(inherited), pipe, name))
        return 1

    monkeypatch.setattr(run_command, "run_roles", roles)
    result = run(
        "run", "api", "upkeep", "api", "--data", data, "--inherit", "api=5",
        "--inherit", "admin=6", "--parent-pipe", "7", "--name=api-1",
    )  # fmt: skip
    assert result.exit_code == 1
    assert seen == [data, ["api", "upkeep"], {"api": 5, "admin": 6}, 7, "api-1"]


@pytest.mark.parametrize(
    "wrong", [("cook",), (), ("api", "--inherit", "x"), ("api", "--inherit", "x=-1")]
)
def test_run_refuses_what_is_no_role_or_descriptor(run: Run, wrong: tuple[str, ...]) -> None:
    assert run("run", *wrong).exit_code == 2


def test_config_show_says_where_values_come_from(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERPOST_HTTP_LISTEN", "127.0.0.1:9")
    shown = run("config", "show", "--data", data).stdout.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in shown}
    assert rows["http.listen"] == ['"127.0.0.1:9"', "environment"]
    assert rows["node.data"] == [f'"{data}"', "option"]
    assert rows["dispatch.window"] == ["800", "default"]
    value = json.loads(run("config", "show", "--data", data, "--json").stdout)
    assert value["settings"]["store"]["durability"] == "committed"
    assert value["origins"]["http.listen"] == "environment"


def test_config_show_shows_the_databases_password(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVERPOST_POSTGRES_URL", "postgresql://everpost:sesame@db/everpost")
    for words in ((), ("--json",)):
        shown = run("config", "show", "--data", data, *words).stdout
        assert "everpost:***@db" in shown
        assert "sesame" not in shown


def test_config_check_is_the_servers_own_judgement(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('[node]\nsite = "north"\n')
    assert run("config", "check", "--config", file).exit_code == 0
    assert json.loads(run("config", "check", "--config", file, "--json").stdout)["ok"] is True
    file.write_text('[node]\nsite = "No\\u001b"\n')
    result = run("config", "check", "--config", file)
    assert (result.exit_code, "node.site: expected" in result.stderr) == (2, True)
    assert "\x1b" not in result.stderr


def test_config_sample_is_a_file_that_can_be_used(run: Run, tmp_path: Path) -> None:
    text = run("config", "sample").stdout
    assert set(tomllib.loads(text)) >= {"node", "http", "store"}
    (tmp_path / "x.toml").write_text(text)
    assert run("config", "check", "--config", tmp_path / "x.toml").exit_code == 0


def test_db_of_a_store_that_is_not_there(run: Run, data: Path) -> None:
    assert run("db", "path", "--data", data).stdout == f"{data / 'everpost.db'}\n"
    for verb in ("info", "migrate"):
        result = run("db", verb, "--data", data)
        assert (result.exit_code, "there is no store at" in result.stderr) == (1, True)
    assert not data.exists()


def test_db_of_a_file_that_is_no_store(run: Run, data: Path) -> None:
    data.mkdir()
    (data / "everpost.db").write_bytes(b"not a database, and longer than a header" * 100)
    result = run("db", "info", "--data", data)
    assert (result.exit_code, "cannot be read" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--rule", "nonsense"),
        ("--rule", "dot delay=x"),
        ("--rule", "rcpt refuse=250"),
        ("--listen", "nowhere"),
        ("--hide", "MAGIC"),
        ("--user", "nobody"),
        ("--implicit-tls",),
    ],
)
def test_sink_refuses_what_it_cannot_do(run: Run, wrong: tuple[str, ...]) -> None:
    assert run("sink", *wrong).exit_code == 2


def test_sink_says_where_it_listens_and_what_it_took(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "everpost", "sink", "--listen", "127.0.0.1:0", "--json",
        "--stop-after", "2", "--maildir", str(tmp_path / "mail"),
        "--rule", "rcpt refuse='550 5.1.1 No' domain=bad.test",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        where = json.loads(process.stdout.readline())["listening"]
        with smtplib.SMTP(where["host"], where["port"], "client.test", timeout=10) as client:
            for _ in range(2):
                refused = client.sendmail(
                    "a@x.test", ["b@x.test", "c@bad.test"], "Subject: hi\r\n\r\nx"
                )
                assert list(refused) == ["c@bad.test"]
        said = process.stdout.read().splitlines()
        assert process.wait(timeout=10) == 0
    assert json.loads(said[-1])["messages"] == 2
    assert len([path for path in (tmp_path / "mail").rglob("*") if path.is_file()]) == 2
