"""The bench's own load and its own processes."""

import base64
import json
import subprocess
from argparse import Namespace

from bench.http_load import Load
from bench.processes import end, tree


def load(**options: object) -> Load:
    defaults = {"host": "h", "key": "k", "messages": 5, "batch": 1, "attachment": 0}
    return Load(Namespace(**{**defaults, "destinations": 1, **options}))


def bodies(found: Load) -> list[object]:
    texts: list[object] = []
    while (request := found.request()) is not None:
        head, _, body = request.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        texts.append(json.loads(body))
    return texts


def test_each_request_is_whole_and_no_two_messages_are_equal() -> None:
    found = bodies(load(destinations=3))
    people = [item["to"] for item in found if isinstance(item, dict)]
    assert people == [f"user{n}@dest{n % 3}.test" for n in range(5)]


def test_attachments_that_a_store_could_share_are_not_sent() -> None:
    """Equal large parts may be stored once, which would flatter."""
    found = bodies(load(attachment=400))
    files = [
        base64.b64decode(item["attachments"][0]["content"], validate=True)
        for item in found
        if isinstance(item, dict)
    ]
    assert {len(content) for content in files} == {300}
    assert len(set(files)) == 5


def test_the_last_batch_is_shorter_rather_than_over_the_count() -> None:
    assert [len(batch) for batch in bodies(load(batch=2)) if isinstance(batch, list)] == [2, 2, 1]


def test_a_server_that_hangs_up_ends_the_load_with_an_error() -> None:
    found = load()
    found.lost()
    assert found.done.is_set()
    assert found.errors == {"connection lost": 1}


def test_a_process_that_will_not_end_is_ended_with_its_children() -> None:
    script = "trap '' TERM; sleep 100 & echo ready; wait; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        family = tree([process.pid])
        assert len(family) == 2
        end(process, 0.1)
        # the child, killed, may still be waited for by whoever inherited it
        assert process.stdout.read() == b""
    assert process.returncode == -9
