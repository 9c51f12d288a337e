"""`everpost loadtest`: what it refuses before anything is sent."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from everpost.loadtest.mix import Mix

Run = Callable[..., Result]
HERE = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1:8080", "http://[2001:db8::1]/", "https://10.0.0.1"]
)
def test_a_server_of_somebody_else_is_loaded(run: Run, url: str) -> None:
    result = run("loadtest", url)
    assert result.exit_code == 2
    assert "--i-own-this-server" in result.stderr
    assert run("loadtest", url, "--json").exit_code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "which server?"),
        (["ftp://127.0.0.1"], "expected http://"),
        ([HERE, "--rate", "0"], "above zero"),
        ([HERE, "--rate", "30000"], "at most 20000"),
        ([HERE, "--duration", "3601"], "at most 3600 s"),
        ([HERE, "--rate", "1000", "--duration", "200"], "201000 messages, and 100000 are allowed"),
        ([HERE, "--messages", "3000000"], "at most 2000000"),
        ([HERE, "--steps", "1,x"], "'x' is no rate"),
        ([HERE, "--steps", "1", "--ramp", "1:2"], "one of --rate"),
        ([HERE, "--rate", "5", "--ramp", "1:2"], "one of --rate"),
        ([HERE, "--find-rate", "--ramp", "1:2"], "one of --rate"),
        ([HERE, "--sink", "127.0.0.1:1025", "--feed", "x"], "not both"),
        ([HERE, "--sink-rule", "dot delay=1"], "is for --sink"),
        ([HERE, "--sink", "127.0.0.1:1025", "--sink-rule", "nonsense"], "no phase"),
        ([HERE, "--sink", "nonsense:x"], "--sink"),
        ([HERE, "--keep-up"], "need --sink or --feed"),
        ([HERE, "--delivered-p99-ms", "5"], "need --sink or --feed"),
        ([HERE, "--metrics", "nonsense"], "expected http://"),
    ],
)
def test_a_wrong_plan_sends_something(run: Run, words: list[str], said: str) -> None:
    result = run("loadtest", *words)
    assert result.exit_code == 2
    assert said in result.stderr


def test_nobody_answers(run: Run) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # taken, and nobody listens
        result = run("loadtest", f"http://127.0.0.1:{held.getsockname()[1]}", "--no-metrics")
    assert result.exit_code == 3
    assert "could not be reached" in result.stderr


def test_mail_goes_to_strangers(run: Run, tmp_path: Path) -> None:
    mix = tmp_path / "mix.toml"
    mix.write_text("[[message]]\nto = 'user{n}@gmail.com'\n")
    result = run("loadtest", HERE, "--mix", mix, "--no-metrics")
    assert result.exit_code == 2
    assert "gmail.com, which may be somebody's" in result.stderr
    assert run("loadtest", HERE, "--mix", mix, "--i-own-these-addresses").exit_code == 3


def test_a_wrong_mix_is_not_explained(run: Run, tmp_path: Path) -> None:
    mix = tmp_path / "mix.toml"
    mix.write_text("[[message]]\nweight = 'x'\n")
    result = run("loadtest", HERE, "--mix", mix)
    assert result.exit_code == 2
    assert "`message[0].weight`" in result.stderr


def test_the_sample_mix_is_none(run: Run) -> None:
    result = run("loadtest", "--sample-mix")
    assert (result.exit_code, len(Mix.read(result.stdout))) == (0, 2)
