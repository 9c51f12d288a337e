"""A configuration that a real program refuses, or in which a commit is acknowledged one copy short,
or a node that cannot be told from another."""

import json
import subprocess
from pathlib import Path

import pytest

from everpost.config import load
from tests.cluster import configuration
from tests.cluster.configuration import Layout

LAYOUT = Layout(
    "10.231.7",
    {f"h{n}": f"10.231.7.{n}" for n in (1, 2, 3)},
    ("10.231.7.10", "10.231.7.11"),
)


def test_haproxy_refuses_its_configuration(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    # Loopback in the place of the address, which only the namespace has.
    text = configuration.haproxy(LAYOUT, "127.0.0.1", str(tmp_path / "sock"))
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(["haproxy", "-c", "-f", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()
    for address in LAYOUT.hosts.values():
        assert f"{address}:5432 check port 8008" in text
        assert f"{address}:8080 check" in text


def test_patroni_goes_on_one_copy_short() -> None:
    told = json.loads(configuration.patroni(LAYOUT, "h2", "/data", bin_dir="/bin"))
    dcs = told["bootstrap"]["dcs"]
    assert dcs["synchronous_mode"]
    assert dcs["synchronous_mode_strict"]
    assert dcs["postgresql"]["parameters"]["synchronous_commit"] == "on"
    assert "fsync" not in dcs["postgresql"]["parameters"]
    assert dcs["ttl"] >= dcs["loop_wait"] + 2 * dcs["retry_timeout"]  # Patroni's own rule
    assert told["name"] == "h2"
    assert told["postgresql"]["connect_address"] == "10.231.7.2:5432"


@pytest.mark.parametrize("pooled", [False, True])
def test_a_node_does_not_know_one_of_its_settings(pooled: bool) -> None:
    given = [
        configuration.everpost(LAYOUT, name, secret_file="/s", pooled=pooled, key="k")
        for name in LAYOUT.hosts
    ]
    names = set()
    for environment in given:
        settings = load(None, environment, {})
        names.add((settings.cluster.name, settings.cluster.listen))
        assert ("127.0.0.1:6432" in settings.postgres.url) == pooled
        assert "10.231.7.11:5000" in settings.postgres.listen_url
    assert len(names) == len(LAYOUT.hosts)


def test_etcd_members_are_not_the_same_everywhere() -> None:
    found = {
        words[words.index("--initial-cluster") + 1]
        for name in LAYOUT.hosts
        for words in [configuration.etcd(LAYOUT, name, "/d", new=True)]
    }
    assert found == {
        "h1=http://10.231.7.1:2380,h2=http://10.231.7.2:2380,h3=http://10.231.7.3:2380"
    }


def test_pgbouncer_keeps_a_session_for_one_client() -> None:
    text = configuration.bouncer(LAYOUT, "/folder")
    assert "pool_mode = transaction" in text
    assert "host=10.231.7.10,10.231.7.11 port=5000" in text
