"""The compose file is one, names nothing that is not there, and sets nothing that is no setting.
No Docker engine runs it here: the same topology runs in network namespaces (`make cluster`)."""

import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import compose_spec
import pytest
import yaml

from everpost.config import load
from everpost.config.describe import describe
from tests.support.deployed import DEPLOY

COMPOSE = DEPLOY / "compose" / "compose.yaml"
SETTINGS = {item.variable for item in describe()}
BESIDE = {"EVERPOST_FIRST_API_KEY", "EVERPOST_MASTER_KEY"}
"""Read from the environment, and no settings."""

DOCUMENT: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
NODES = {name: each for name, each in SERVICES.items() if each["image"] == "everpost"}


def test_file_breaks_the_compose_specification() -> None:
    """Types, durations, ports, unknown keys; names of volumes, networks and secrets."""
    compose_spec.PyCompose.from_json(json.dumps(DOCUMENT)).validate()


def test_three_of_each_and_two_balancers() -> None:
    kinds = {re.sub(r"\d+$", "", name) for name in SERVICES}
    assert kinds == {"etcd", "db", "haproxy", "everpost"}
    assert len(SERVICES) == 11


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_service_names_what_is_not_there(name: str) -> None:
    service = SERVICES[name]
    for source, _, _ in (volume.partition(":") for volume in service["volumes"]):
        if source.startswith("."):
            assert (COMPOSE.parent / source).exists(), source
        else:
            assert source in DOCUMENT["volumes"], source
    for secret in service.get("secrets", []):
        known = secret if isinstance(secret, str) else secret["source"]
        assert known in DOCUMENT["secrets"], known
    assert set(service.get("depends_on", {})) <= set(SERVICES)
    assert set(service["networks"]) <= set(DOCUMENT["networks"])
    if "build" in service:
        context = COMPOSE.parent / service["build"]["context"]
        dockerfile = context / service["build"]["dockerfile"]
        for line in dockerfile.read_text(encoding="utf-8").splitlines():
            words = [word for word in line.split() if not word.startswith("--")]
            if words[:1] == ["COPY"] and "--from" not in line:
                for source in words[1:-1]:
                    assert (context / source).exists(), line
    wanted = {"condition": "service_healthy"}
    for other, how in service.get("depends_on", {}).items():
        if how == wanted:
            again = (COMPOSE.parent / SERVICES[other]["build"]["context"]).resolve()
            file = again / SERVICES[other]["build"]["dockerfile"]
            assert "HEALTHCHECK" in file.read_text(encoding="utf-8"), other


def test_two_services_share_an_address_or_a_volume() -> None:
    addresses = [each["networks"]["inside"]["ipv4_address"] for each in SERVICES.values()]
    assert len(set(addresses)) == len(addresses)
    published = [port for each in SERVICES.values() for port in each.get("ports", [])]
    assert len({port.rpartition(":")[0] for port in published}) == len(published)
    assert all(port.startswith("127.0.0.1:") for port in published), "open to the world"
    named = [v for each in SERVICES.values() for v in each["volumes"] if v[0] != "."]
    assert len(set(named)) == len(named)


def test_addresses_in_words_are_those_of_services() -> None:
    """Whoever is named by address in an environment is the one that it should be."""
    of = {each["networks"]["inside"]["ipv4_address"]: name for name, each in SERVICES.items()}
    ports = {"etcd": {2379, 2380}, "db": {5432, 8008}, "haproxy": {5000}, "everpost": {8080, 8089}}
    for name, service in SERVICES.items():
        for variable, value in service["environment"].items():
            for address, port in re.findall(r"(10\.77\.0\.\d+):(\d+)", str(value)):
                kind = of[address].rstrip("123")
                assert int(port) in ports[kind], (name, variable, value)
    for name in ("haproxy1", "haproxy2"):
        environment = SERVICES[name]["environment"]
        for n in (1, 2, 3):
            assert of[environment[f"EVERPOST_{n}"].partition(":")[0]] == f"everpost{n}"
            assert of[environment[f"POSTGRES_{n}"].partition(":")[0]] == f"db{n}"


@pytest.mark.parametrize("name", sorted(NODES))
def test_node_is_given_what_is_no_setting(name: str) -> None:
    """Each variable is a setting, each value one that it takes, each secret's file mounted."""
    environment = {k: v for k, v in NODES[name]["environment"].items() if k not in BESIDE}
    assert set(environment) <= SETTINGS
    settings = load(Path(os.devnull), environment, {})
    assert settings.cluster.name == name
    assert settings.cluster.address.startswith(
        f"http://{NODES[name]['networks']['inside']['ipv4_address']}:"
    )
    secrets = NODES[name]["secrets"]
    mounted = {f"/run/secrets/{each}" for each in secrets if isinstance(each, str)}
    assert {settings.postgres.password_file, settings.cluster.secret_file} <= mounted
    assert {"source": "master_key", "target": "/data/master.key"} in secrets
    grace = int(str(NODES[name]["stop_grace_period"]).removesuffix("s"))
    assert grace >= settings.http.linger_s + settings.node.drain_s + 15


def test_environment_of_a_balancer_leaves_a_name_out() -> None:
    """Both files, as one configuration, with these values."""
    service = SERVICES["haproxy1"]
    files = [
        str(DEPLOY / "haproxy" / Path(word).name) for word in service["command"] if "/" in word
    ]
    assert len(files) == 2
    given = ["-f", files[0], "-f", files[1]]
    done = subprocess.run(
        ["/usr/sbin/haproxy", "-c", *given],
        env={k: v for k, v in os.environ.items() if k != "EVERPOST_1"} | service["environment"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    named = set(re.findall(r"\$\{(\w+)\}", "".join(Path(f).read_text() for f in files)))
    assert named == set(service["environment"])


def test_secrets_are_made_twice(tmp_path: Path) -> None:
    """A second run changes none; nobody but their owner can enter; two are Everpost's alone."""
    script = tmp_path / "secrets.sh"
    shutil.copy(DEPLOY / "compose" / "secrets.sh", script)
    (tmp_path / "bin").mkdir()
    docker = tmp_path / "bin" / "docker"  # where this is not run as root
    docker.write_text("#!/bin/sh\n")
    docker.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    subprocess.run(["sh", str(script)], env=environment, check=True)
    files = {file.name: file for file in (tmp_path / "secrets").iterdir()}
    assert set(files) == set(DOCUMENT["secrets"])
    before = {name: file.read_bytes() for name, file in files.items()}
    subprocess.run(["sh", str(script)], env=environment, check=True)
    assert {name: file.read_bytes() for name, file in files.items()} == before
    assert len(set(before.values())) == len(before)
    assert all(len(value) >= 32 for value in before.values())
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    for name in ("master_key", "peers"):
        assert stat.S_IMODE(files[name].stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    key = (tmp_path / ".env").read_text().strip().partition("=")[2]
    assert re.fullmatch(r"[A-Za-z0-9_-]{40,}", key)
