"""Rules of the house that no linter knows."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "everpost"
FILES = sorted(SOURCE.rglob("*.py"))
CLOCKS = {
    "time.time",
    "time.time_ns",
    "datetime.now",
    "datetime.datetime.now",
    "datetime.utcnow",
    "uuid.uuid4",
    "uuid4",
    "uuid.uuid1",
    "random.random",
}
MAY_READ_A_CLOCK = {"clock.py", "telemetry.py"}


def _calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def test_clocks_and_randomness_are_handed_in() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line} {name}"
        for path in FILES
        if path.name not in MAY_READ_A_CLOCK
        for line, name in _calls(ast.parse(path.read_text()))
        if name in CLOCKS
    ]
    assert found == []


def test_cancellation_is_never_swallowed() -> None:
    """`except CancelledError` or `except BaseException` must raise again."""
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ExceptHandler):
                continue
            caught = ast.unparse(node.type) if node.type else "everything"
            if not any(w in caught for w in ("CancelledError", "BaseException", "everything")):
                continue
            if not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
                found.append(f"{path.relative_to(SOURCE)}:{node.lineno} {caught}")
    assert found == []


def test_packages_say_what_they_are_for_and_what_their_face_is() -> None:
    silent = []
    for path in sorted(SOURCE.rglob("__init__.py")):
        if path.parent == SOURCE or "migrations" in path.parts or path.parent.name == "sql":
            continue
        tree = ast.parse(path.read_text())
        names = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        has_face = "__all__" in names or not any(
            isinstance(n, ast.ImportFrom | ast.FunctionDef | ast.ClassDef) for n in tree.body
        )
        if not ast.get_docstring(tree) or not has_face:
            silent.append(str(path.relative_to(SOURCE)))
    assert silent == []


def test_names_that_mean_nothing() -> None:
    nothing = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc"}
    assert [str(p) for p in FILES if p.stem in nothing or p.parent.name in nothing] == []


def test_no_module_has_outgrown_its_room() -> None:
    grown = {str(p.relative_to(SOURCE)): len(p.read_text().splitlines()) for p in FILES}
    assert {name: n for name, n in grown.items() if n > 550} == {}
