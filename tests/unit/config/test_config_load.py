"""Settings: what is refused, and how it is said."""

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from everpost.config import FILE_NAME, ConfigError, Settings, load, trace
from everpost.config.load import environment_name, keys
from everpost.model.message import Durability


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(text, encoding="utf-8")
    return path


def _problems(
    path: Path | None, environment: dict[str, str], overrides: dict[str, object]
) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path, environment, overrides)
    return caught.value.problems


def test_nothing_given_means_the_documented_defaults(tmp_path: Path) -> None:
    assert load(None, {}, {"node.data": tmp_path}).http == Settings().http


def test_later_source_wins(tmp_path: Path) -> None:
    file = _file(
        tmp_path, '[http]\nlisten = "a:1"\nadmin_listen = "a:2"\n[dispatch]\nwindow = 7\nbatch = 7'
    )
    environment = {"EVERPOST_HTTP_LISTEN": "b:1", "EVERPOST_HTTP_ADMIN_LISTEN": "b:2"}
    loaded = trace(file, environment, {"http.listen": "c:1", "store.durability": None})
    http = loaded.settings.http
    assert (http.listen, http.admin_listen, loaded.settings.dispatch.window) == ("c:1", "b:2", 7)
    assert loaded.origins == {
        "http.listen": "option",
        "http.admin_listen": "environment",
        "dispatch.window": str(file),
        "dispatch.batch": str(file),
    }


def test_file_of_the_data_directory_is_found_whoever_names_the_directory(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('[node]\nsite = "north"\n')
    assert load(None, {}, {"node.data": tmp_path}).node.site == "north"
    assert load(None, {"EVERPOST_NODE_DATA": str(tmp_path)}, {}).node.site == "north"


def test_values_arrive_in_their_types(tmp_path: Path) -> None:
    file = _file(
        tmp_path,
        '[node]\ndata = "/srv/x"\n[store]\ndurability = "relaxed"\n[delivery]\nidle_s = 3\n',
    )
    found = load(file, {"EVERPOST_NODE_DRAIN_S": "1.5", "EVERPOST_DISPATCH_BATCH": "20"}, {})
    assert found.node.data == Path("/srv/x")
    assert found.store.durability is Durability.RELAXED
    assert (found.delivery.idle_s, type(found.delivery.idle_s)) == (3.0, float)
    assert (found.node.drain_s, found.dispatch.batch) == (1.5, 20)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[http]\nlisen = "a:1"', "unknown key http.lisen (did you mean http.listen?)"),
        ('[htpp]\nlisten = "a:1"', "unknown section [htpp] (did you mean [http]?)"),
        (
            'listen = "a:1"',
            "unknown key listen outside of a section (did you mean listen in [http]",
        ),
        ("[dispatch]\ndot_s = 700", "unknown key dispatch.dot_s (did you mean delivery.dot_s?)"),
        ('http = "a:1"', "http: expected a section [http]; found 'a:1'"),
    ],
)
def test_a_typo_names_the_nearest_known_key(tmp_path: Path, text: str, said: str) -> None:
    file = _file(tmp_path, text)
    assert [p for p in _problems(file, {}, {}) if said in p and p.startswith(str(file))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[http]\nlisten = 8080", "http.listen: expected HOST:PORT, an IPv6 address in brackets"),
        ('[http]\nlisten = "8080"', "http.listen: expected HOST:PORT"),
        ('[http]\nlisten = "a:70000"', "http.listen: expected HOST:PORT"),
        ('[dispatch]\nwindow = "400"', "dispatch.window: expected a whole number from 1 to 100000"),
        ("[dispatch]\nwindow = 1.5", "dispatch.window: expected a whole number"),
        ("[dispatch]\nwindow = true", "dispatch.window: expected a whole number"),
        ("[dispatch]\nwindow = 0", "found 0"),
        ("[delivery]\ndot_s = nan", "delivery.dot_s: expected a number of seconds from 0.01"),
        ("[delivery]\ndot_s = inf", "delivery.dot_s: expected a number of seconds"),
        ('[store]\ndurability = "fast"', 'expected "committed" or "relaxed"; found \'fast\''),
        ("[store]\ndurability = 1", 'expected "committed" or "relaxed"; found 1'),
        ('[node]\nsite = "Nord Süd"', "node.site: expected lower-case letters"),
        ('[node]\ndata = ""', "node.data: expected a directory"),
        ('[node]\ndata = "a\\u0000b"', "node.data: expected a directory"),
        ('[node]\nhostname = "a b"', "node.hostname: expected a host name"),
        ('[node]\npublic_url = "ftp://x"', "node.public_url: expected http://"),
        ('[node]\npublic_url = "http://[::1"', "node.public_url: expected http://"),
        ("[limits]\nfree_bytes = -1", "limits.free_bytes: expected a whole number of bytes, 0"),
        ("[http\n", "is not TOML: "),
        ("[http]\nlisten = '\x00'", "is not TOML: "),
    ],
)
def test_a_wrong_value_names_key_file_and_expected_form(
    tmp_path: Path, text: str, said: str
) -> None:
    file = _file(tmp_path, text)
    assert [p for p in _problems(file, {}, {}) if said in p and p.startswith(str(file))]


def test_every_mistake_is_named_at_once_not_one_a_start(tmp_path: Path) -> None:
    file = _file(tmp_path, "[http]\nlisten = 1\nlisen = 2\n")
    environment = {"EVERPOST_NODE_PROCESSES": "many"}
    problems = _problems(file, environment, {"store.durability": "no"})
    assert len(problems) == 4
    assert any(
        "environment: EVERPOST_NODE_PROCESSES: expected a whole number" in p for p in problems
    )
    assert any(p.startswith("option: store.durability") for p in problems)


def test_a_missing_or_unreadable_file_is_said(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in _problems(tmp_path / "none.toml", {}, {})[0]
    assert "cannot be read: Is a directory" in _problems(tmp_path, {}, {})[0]
    (tmp_path / "latin.toml").write_bytes(b"[node]\nsite = '\xe4'\n")
    assert "is not TOML" in _problems(tmp_path / "latin.toml", {}, {})[0]


@pytest.mark.parametrize(
    "name", ["EVERPOST_HTTP_LISEN", "EVERPOST_HTPP_LISTEN", "EVERPOST_STORE_DURABLE"]
)
def test_a_misspelt_variable_is_not_ignored(tmp_path: Path, name: str) -> None:
    problem = _problems(None, {name: "x"}, {"node.data": tmp_path})[0]
    assert f"unknown variable {name} (did you mean EVERPOST_" in problem


def test_a_kubernetes_service_called_everpost_does_not_stop_the_start(tmp_path: Path) -> None:
    environment = {
        "EVERPOST_PORT": "tcp://10.0.0.1:80",
        "EVERPOST_HTTP_SERVICE_HOST": "10.0.0.1",
        "EVERPOST_HTTP_SERVICE_PORT": "80",
        "EVERPOST_HTTP_PORT": "tcp://10.0.0.1:80",
        "EVERPOST_HTTP_PORT_80_TCP_ADDR": "10.0.0.1",
        "EVERPOST_API_KEY": "k",
        "EVERPOST_URL": "http://x",
        "EVERPOST_FIRST_API_KEY": "k",
        "EVERPOST_MASTER_KEY": "k",
        "HOME": "/",
    }
    assert load(None, environment, {"node.data": tmp_path}).http == Settings().http


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"dispatch.lease_s": 600.0}, "dispatch.lease_s (600) must be longer than delivery.dot_s"),
        ({"dispatch.batch": 1000}, "must not be larger than dispatch.window"),
        ({"limits.body_bytes": 50 << 20}, "must hold one body"),
        ({"http.body_bytes": 30 << 20}, "must hold a message"),
        ({"http.admin_listen": "127.0.0.1:8080"}, "must differ"),
        ({"canary.address": "c@box.test"}, "needs canary.mailbox"),
        ({"canary.address": "c@box.test", "canary.mailbox": "imaps://box.test"}, "canary.username"),
        ({"canary.address": "nobody"}, "expected a mail address"),
        ({"canary.mailbox": "imap://box.test"}, "on this machine only"),
    ],
)
def test_values_that_contradict_each_other(
    tmp_path: Path, overrides: dict[str, object], said: str
) -> None:
    assert any(said in p for p in _problems(None, {}, {"node.data": tmp_path, **overrides}))


def test_both_listeners_may_ask_for_any_free_port(tmp_path: Path) -> None:
    given = {"http.listen": "127.0.0.1:0", "http.admin_listen": "127.0.0.1:0"}
    assert load(None, {}, {"node.data": tmp_path, **given}).http.listen == "127.0.0.1:0"


def test_settings_survive_the_way_to_a_child_process_as_environment(tmp_path: Path) -> None:
    overrides = {
        "node.data": tmp_path,
        "store.durability": "relaxed",
        "log.file": "x.log",
        "http.admin_listen": "",
    }
    given = load(None, {}, overrides)
    environment = {
        environment_name(key): str(getattr(getattr(given, key.section), key.name)) for key in keys()
    }
    assert load(None, environment, {}) == given


def test_every_default_is_in_its_own_range() -> None:
    environment = {
        environment_name(key): str(getattr(getattr(Settings(), key.section), key.name))
        for key in keys()
    }
    assert load(None, environment, {}) == Settings()
    assert {key.section for key in keys()} == {item.name for item in fields(Settings)}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([key.dotted for key in keys()]), st.one_of(
    st.text(max_size=20), st.integers(), st.floats(), st.booleans(), st.none(),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.integers()),
))  # fmt: skip
def test_no_value_whatever_escapes_as_another_error(dotted: str, value: object) -> None:
    problems: tuple[str, ...] = ()
    try:
        load(None, {}, {"node.data": "/nowhere", dotted: value})
    except ConfigError as error:
        problems = error.problems
    assert all(problem and "\n" not in problem for problem in problems)
