"""What a user sees when the server is not there, refuses, or is not ours."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from everpost.net.http import Broken, Origin, Unreachable, request
from tests.support.tiny_api import TinyApi

Run = Callable[..., Result]
LIST = {"object": "list", "data": [], "has_more": False}


def test_no_server_is_exit_code_3_and_says_what_to_do(run: Run, data: Path) -> None:
    result = run("keys", "list", "--data", data)
    assert result.exit_code == 3
    assert f"no server is running on {data}" in result.stderr
    assert f"everpost serve --data {data}" in result.stderr


def test_a_socket_that_a_dead_server_left_is_no_server(run: Run, data: Path) -> None:
    (data / "run").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(data / "run" / "admin.sock"))
    assert run("status", "--data", data).exit_code == 3


def test_a_refusal_is_exit_code_1_with_the_servers_own_words(
    run: Run, api: TinyApi, data: Path
) -> None:
    said = {"statusCode": 422, "name": "validation_error", "message": "Invalid `to` field."}
    api.on("GET /relays", said, status=422)
    result = run("relays", "list", "--data", data)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "everpost: validation_error: Invalid `to` field.\n"


def test_a_program_that_asked_for_json_gets_no_prose(run: Run, api: TinyApi, data: Path) -> None:
    said = {"statusCode": 422, "name": "validation_error", "message": "Invalid \x1b `to`."}
    api.on("GET /relays", said, status=422)
    result = run("relays", "list", "--json", "--data", data)
    assert (result.exit_code, result.stdout) == (1, "")
    told = json.loads(result.stderr)
    assert (told["exit_code"], "validation_error: " in told["error"]) == (1, True)
    assert "\x1b" not in result.stderr
    nobody = run("relays", "list", "--json", "--data", data / "elsewhere")
    assert json.loads(nobody.stderr)["exit_code"] == nobody.exit_code == 3
    wrong = run("relays", "list", "--json", "--url", "ftp://x")
    assert json.loads(wrong.stderr)["exit_code"] == wrong.exit_code == 2


def test_overload_says_when_to_come_again(run: Run, api: TinyApi, data: Path) -> None:
    said = {"statusCode": 503, "name": "service_unavailable", "message": "Too busy."}
    api.on("GET /relays", said, status=503, headers={"retry-after": "7"})
    assert "Too busy. (try again in 7 s)" in run("relays", "list", "--data", data).stderr


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b"", b"\xff", b"[" * 100_000])
def test_a_server_that_is_not_ours_is_no_traceback(
    run: Run, api: TinyApi, data: Path, body: bytes
) -> None:
    api.on("GET /relays", body)
    result = run("relays", "list", "--data", data)
    assert result.exit_code == 1
    assert "not as Everpost's API does" in result.stderr


def test_an_error_cannot_drive_the_terminal(run: Run, api: TinyApi, data: Path) -> None:
    api.on("GET /relays", {"name": "x", "message": "\x1b]0;pwn\x07\r\nfake\x9b1m"}, status=400)
    said = run("relays", "list", "--data", data).stderr
    assert said == "everpost: x: \\x1b]0;pwn\\x07\\x0d\\x0afake\\x9b1m\n"


def test_the_local_socket_gets_no_key_and_a_url_does(run: Run, api: TinyApi, data: Path) -> None:
    api.on("GET /relays", LIST)
    run("relays", "list", "--data", data, "--key", "secret")
    assert "authorization" not in api.asked[-1].headers
    with TinyApi() as far:
        far.on("GET /relays", LIST)
        assert run("relays", "list", "--url", far.url, "--key", "secret").exit_code == 0
        assert far.asked[-1].headers["authorization"] == "Bearer secret"


def test_url_and_key_come_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with TinyApi() as far:
        far.on("GET /base/relays", LIST)
        monkeypatch.setenv("EVERPOST_URL", f"{far.url}/base/")
        monkeypatch.setenv("EVERPOST_API_KEY", "secret")
        assert run("relays", "list").exit_code == 0
        assert far.asked[-1].headers["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    "url", ["ftp://x", "x", "http://", "http://a:99999", "http://u:p@h", "http://h/?a=1"]
)
def test_a_url_that_is_none_is_wrong_usage(run: Run, url: str) -> None:
    result = run("relays", "list", "--url", url)
    assert (result.exit_code, "--url" in result.stderr) == (2, True)


def test_a_redirect_does_not_carry_the_key_elsewhere(run: Run) -> None:
    with TinyApi() as far, TinyApi() as thief:
        far.on("GET /relays", {}, status=302, headers={"location": f"{thief.url}/relays"})
        assert run("relays", "list", "--url", far.url, "--key", "secret").exit_code == 1
        assert thief.asked == []


def test_long_lists_are_read_page_by_page(run: Run, api: TinyApi, data: Path) -> None:
    for page in ("a", "b"):
        rows = [{"id": f"{page}{n}", "name": f"n{page}{n}"} for n in range(2)]
        api.on("GET /relays", {**LIST, "data": rows, "has_more": page == "a"})
    result = run("relays", "list", "--data", data, "--json")
    assert [row["id"] for row in json.loads(result.stdout)] == ["a0", "a1", "b0", "b1"]
    assert api.asked[1].query == {"limit": "100", "after": "a1"}


def test_a_data_directory_deeper_than_a_socket_address(run: Run, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    with TinyApi(deep / "run" / "admin.sock") as server:
        server.on("GET /relays", LIST)
        assert run("relays", "list", "--data", deep).exit_code == 0


def test_a_connection_that_ends_early_is_told_apart_from_none(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        with pytest.raises(Broken, match="timed out"):
            request(Origin.from_socket(path), "GET", path="/", timeout_s=0.05)
    with pytest.raises(Unreachable) as caught:
        request(Origin.from_socket(path), "GET", path="/")
    assert caught.value.errno is not None


def test_origins_are_written_as_they_are_read() -> None:
    for url in ("http://h:8080", "https://h:443/x", "http://[::1]:80"):
        assert str(Origin.from_url(url)) == url
    assert str(Origin.from_url("https://h/")) == "https://h:443"
