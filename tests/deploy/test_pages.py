"""The pages on topologies, balancers and upgrades say what the settings and deploy/ do."""

import re
from pathlib import Path

import click
import pytest
import yaml

from everpost.cli.root import root
from everpost.config import Settings
from everpost.config.describe import describe
from everpost.delivery.breaker import SLOW_START
from everpost.model.pool import Pool
from tests.deploy.test_kubernetes import CONFIG, VERSIONS
from tests.deploy.test_patroni import DCS
from tests.support.deployed import DEPLOY

ROOT = DEPLOY.parent
PAGES = {
    path.name: path.read_text(encoding="utf-8")
    for path in (
        ROOT / "docs/operate/topologies.md",
        ROOT / "docs/operate/load-balancing.md",
        ROOT / "docs/operate/upgrading.md",
        DEPLOY / "README.md",
    )
}
PLACES = {"README.md": DEPLOY}
SETTINGS = {f"{item.section}.{item.name}" for item in describe()}
HAPROXY = (DEPLOY / "haproxy" / "api.cfg").read_text(encoding="utf-8")
ONE = (DEPLOY / "haproxy" / "api-one-machine.cfg").read_text(encoding="utf-8")
NGINX = (DEPLOY / "nginx" / "everpost.conf.template").read_text(encoding="utf-8")


def _words(name: str) -> str:
    return " ".join(PAGES[name].split())


def _anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", sorted(PAGES))
def test_page_leads_nowhere(name: str) -> None:
    folder = PLACES.get(name, ROOT / "docs/operate")
    links = re.findall(r"\]\(([^)]+)\)", PAGES[name])
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (folder / path).resolve() if path else folder / name
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("name", sorted(PAGES))
def test_page_names_a_setting_that_is_none(name: str) -> None:
    sections = {each.partition(".")[0] for each in SETTINGS}
    for said in re.findall(r"`([a-z]+\.[a-z_]+)`", PAGES[name]):
        assert said in SETTINGS or said.partition(".")[0] not in sections, said


@pytest.mark.parametrize("name", sorted(PAGES))
def test_page_names_a_file_that_is_not_there(name: str) -> None:
    for said in re.findall(r"`((?:deploy|tests|docs)/[\w./@-]+)`", PAGES[name]):
        assert (ROOT / said).exists(), said
    for said in re.findall(r"^\| `([\w/.@*-]+)` \|", PAGES["README.md"], re.MULTILINE):
        assert list(DEPLOY.glob(said.rstrip("/"))), said


@pytest.mark.parametrize("name", sorted(PAGES))
def test_page_names_a_command_that_is_none(name: str) -> None:
    for said in re.findall(r"`everpost ([a-z]+)", PAGES[name]):
        assert root.get_command(click.Context(root), said) is not None, said


def test_page_on_balancers_says_other_numbers() -> None:
    said, http = _words("load-balancing.md"), Settings().http
    (inter, fast, fall) = re.findall(r"inter (\S+) fastinter (\S+) .*fall (\d)", HAPROXY)[0]
    assert f"HAProxy (`inter {inter} fastinter {fast} fall {fall}`)" in said
    assert f"`http.keep_alive_s` ({http.keep_alive_s:.0f} s)" in said
    assert http.linger_s == 0
    assert "It is 0 by default" in said
    (kept,) = {int(size) for size in re.findall(r"tune\.bufsize (\d+)", HAPROXY + ONE)}
    assert f"up to {kept // 1024} KiB (`tune.bufsize`)" in said
    seconds = int(re.findall(r"^ +retries (\d+)", ONE, re.MULTILINE)[0]) * 0.5
    assert "timeout connect 500ms" in ONE
    assert seconds == 10
    assert "up to ten seconds" in said
    assert "max_fails=3 fail_timeout=2s" in NGINX
    assert "leaves a node for 2 s after three failures" in said
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))
    lingers = compose["x-everpost-environment"]["EVERPOST_HTTP_LINGER_S"]
    assert f"| 0.3 s and two answers | {lingers} |" in said
    assert f"endpoints take to spread | {CONFIG['data']['EVERPOST_HTTP_LINGER_S']} |" in said
    for text in (HAPROXY, ONE):
        assert "timeout server 65s" in text
    assert "proxy_read_timeout 65s" in NGINX
    assert "65 s in the files" in said
    idle = re.findall(r"(?:http-keep-alive|keepalive_timeout) (\d+)s", HAPROXY + ONE + NGINX)
    assert all(int(each) < http.keep_alive_s for each in idle)
    assert f"client_max_body_size {http.body_bytes >> 20}m" in NGINX


def test_page_on_topologies_says_other_numbers() -> None:
    said, settings = _words("topologies.md"), Settings()
    assert (
        f"ttl {DCS['ttl']}, loop_wait {DCS['loop_wait']}, retry_timeout {DCS['retry_timeout']}"
        in said
    )
    assert f"after {settings.cluster.patience_s * 1000:.0f} ms without an answer" in said
    assert f"`spill_below` ({Pool(name='p', tiers=()).spill_below})" in said
    assert f"slowly at first ({SLOW_START:.0f} s)" in said
    assert f"({', '.join(VERSIONS)})" in said
    assert "3.5.13, 3.4.31" in said
    versions = " and ".join((", ".join(VERSIONS[:-1]), VERSIONS[-1]))
    assert f"API's schemas of {versions}" in _words("README.md")


def test_image_that_a_release_does_not_fit() -> None:
    """The images' Python is one that Everpost and its lock file are for."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for file in sorted((DEPLOY / "docker").glob("*.Dockerfile")):
        for version in re.findall(r"FROM python:(\d\.\d+)", file.read_text(encoding="utf-8")):
            assert f"Python :: {version}" in project


def test_source_of_a_secret_ends_up_in_an_image() -> None:
    """What docker build is given: what the Dockerfiles copy, nothing else."""
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert kept[0] == "*"
    assert {line for line in kept if line.startswith("!")} == {
        "!src", "!requirements.lock", "!pyproject.toml", "!README.md", "!LICENSE",
        "!deploy/patroni",
    }  # fmt: skip
    ignored = Path(DEPLOY / "compose" / ".gitignore").read_text(encoding="utf-8").split()
    assert ignored == ["secrets/", ".env"]
