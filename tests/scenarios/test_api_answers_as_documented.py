"""The whole OpenAPI document of a running server, by schemathesis: no server error, no answer that
the document does not know.

Runs are reproducible (`deterministic`) and bounded. What JSON Schema cannot say is left out: that a
valid body must be accepted (it knows no domains and no mailboxes; `after` excludes `before`).
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.house import KEY, House

_CONFIG = """
[generation]
deterministic = true
max-examples = {examples}

[checks.positive_data_acceptance]
enabled = false

# A permissive batch answers 200 and lists the emails that it refused.
[[operations]]
include-name = "POST /emails/batch"
[operations.checks.negative_data_rejection]
enabled = false
"""
_KNOWN = """
[[operations]]
include-path-regex = "^/{kind}/\\\\{{id\\\\}}"
[operations.parameters]
"path.id" = "{id}"
"""


@pytest.fixture(name="house")
def _house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path / "d") as house:
        house.relay("smtp://127.0.0.1:1", name="nobody", tls="none")
        house.domain("example.com", signing="unsigned")
        yield house


def _run(house: House, folder: Path, *words: str, config: str) -> None:
    """One run over the document; its report when it finds a fault."""
    (folder / "schemathesis.toml").write_text(config, encoding="utf-8")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", "schemathesis.toml"),
            *("run", f"{house.url}/openapi.json", "--url", house.url, "--no-shrink"),
            *("--continue-on-failure", "--header", f"Authorization: Bearer {KEY}", *words),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    log = house.log.read_text(errors="replace")
    assert '"http.error"' not in log, house.tail()
    assert house.get("/health/live").status == 200


@pytest.mark.parametrize("part", ["--include-tag", "--exclude-tag"])
def test_answer_is_a_server_error_or_undocumented(house: House, tmp_path: Path, part: str) -> None:
    """Examples, edges, junk and chains of calls, for emails and for all the rest."""
    _run(house, tmp_path, part, "Emails", config=_CONFIG.format(examples=10))


@pytest.mark.long
def test_answer_about_things_that_exist_is_undocumented(house: House, tmp_path: Path) -> None:
    """The same for each path with an id, with ids that somebody has."""
    key = house.post("/api-keys", {"name": "to be revoked"}).json["id"]
    later = house.send(from_="a@example.com", scheduled_at="in 1 hour")
    caught = house.post("/api-keys", {"name": "box", "sandbox": True}).json["token"]
    caught_id = house.call(
        "POST", "/emails",
        {"from": "a@example.com", "to": "b@x.test", "subject": "x", "text": "y"},
        headers={"Authorization": f"Bearer {caught}"},
    ).json["id"]  # fmt: skip
    house.relay("smtp://127.0.0.1:2", name="to be removed", tls="none")
    relay = next(r["id"] for r in house.get("/relays").json["data"] if r["name"] != "nobody")
    pool = house.post("/pools", {"name": "p", "tiers": [["nobody"]]}).json["id"]
    used = house.post("/pools", {"name": "used", "tiers": [["nobody"]]}).json["id"]
    route = house.post("/routes", {"name": "r", "pool": used}).json["id"]
    ids = {
        "emails": later, "sandbox": caught_id, "api-keys": key, "relays": relay,
        "pools": pool, "routes": route,
        "domains": house.domain("gone.example.com", signing="unsigned")["id"],
    }  # fmt: skip
    known = "".join(_KNOWN.format(kind=kind, id=id_) for kind, id_ in ids.items())
    _run(
        house, tmp_path, "--include-path-regex", r"\{id\}", "--phases", "coverage,fuzzing",
        config=_CONFIG.format(examples=10) + known,
    )  # fmt: skip
