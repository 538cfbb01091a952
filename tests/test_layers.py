"""The arrows of the house: metaverify -> fitting -> simulators -> policies -> standard library, and none back."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("policies", "simulators", "fitting")
NOT_OURS = {".venv", ".git", "build", "dist", "__pycache__"}

OURS = {  # what of metaverify a room may import
    "policies": ("metaverify.policies",),
    "simulators": ("metaverify.simulators", "metaverify.policies"),
    "fitting": ("metaverify.fitting", "metaverify.simulators", "metaverify.policies"),
}
EXTRAS = {
    "policies/signatures.py": "cryptography",
    "simulators/collecting/prices.py": "litellm",
    "simulators/importers/inspect_logs.py": "inspect_ai",
}  # what a file may import where it is used, and not before
OTHERS = {  # what a room may import beside the standard library
    "policies": frozenset[str](),
    "simulators": frozenset({"numpy", "polars", "narwhals"}),
    "fitting": frozenset({"numpy", "polars", "narwhals", "scipy", "sklearn", "optuna", "joblib", "threadpoolctl"})
    | {"pomdp_py"},
}


def module_name(path: Path) -> str:
    """The import name of a file of the repository."""
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] in ROOMS:
        parts.insert(0, "metaverify")
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a file imports, wherever in it and however."""
    package = module_name(path).split(".")[: None if path.name == "__init__.py" else -1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        match node:
            case ast.Import(names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module, names, level):
                base = ".".join([*package[: len(package) - level + 1], *filter(None, [module])]) if level else module
                yield from ((node.lineno, f"{base}.{alias.name}") for alias in names)
            case ast.Call(ast.Attribute(attr="import_module") | ast.Name("import_module" | "__import__"), [name, *_]):
                if isinstance(name, ast.Constant):
                    yield node.lineno, str(name.value)


def files(*folders: str) -> list[Path]:
    """Every Python file below these folders, links not followed."""
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if not _passed_over(path.relative_to(ROOT)))


def _passed_over(path: Path) -> bool:
    linked = any((ROOT / part).is_symlink() for part in (path, *path.parents[:-1]))
    return linked or bool(NOT_OURS & set(path.parts))


def under(name: str, parent: str) -> bool:
    return name == parent or name.startswith(f"{parent}.")


def wrong_arrows(room: str) -> list[str]:
    """Everything that a room's files import and may not."""
    found = []
    for path in files(room):
        outside = room == "policies" and "integrations" in path.relative_to(ROOT).parts
        for line, name in imported(path):
            top = name.partition(".")[0]
            if top == "metaverify":
                right = any(under(name, ours) for ours in OURS[room])
            else:
                right = top in sys.stdlib_module_names or top in OTHERS[room] or (outside and top not in ROOMS)
                right = right or EXTRAS.get(path.relative_to(ROOT).as_posix()) == top
            if not right:
                found.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_stands_below_it(room: str) -> None:
    assert files(room), f"no files in {room}/"
    assert wrong_arrows(room) == []


def test_the_short_names_of_the_rooms_are_imported_nowhere() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in files("metaverify", *ROOMS, "tests", "examples")
        for line, name in imported(path)
        if name.partition(".")[0] in ROOMS
    ]
    assert found == []


def test_modules_import_each_other_in_no_circle() -> None:
    names = {module_name(path): path for path in files(*ROOMS)}
    needs: dict[str, set[str]] = {}
    for module, path in names.items():
        targets = {name if name in names else name.rpartition(".")[0] for _, name in imported(path)}
        needs[module] = targets & names.keys()
    order = list(TopologicalSorter(needs).static_order())  # raises CycleError
    assert set(order) == set(names)


def test_this_test_sees_a_wrong_arrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    sources = {
        "policies/a.py": "import numpy\nfrom metaverify.fitting import fit\nfrom metaverify import Policy\nimport json",
        "policies/integrations/b.py": "import litellm\nfrom metaverify.simulators import log",
        "policies/c.py": "from ..simulators import log\nfrom .tiers import Tier\nimport importlib\n"
        "importlib.import_module('metaverify.fitting.fit')",
        "simulators/d.py": "def f():\n    import scipy\nfrom metaverify.policies.policy import Policy",
        "fitting/e.py": "import metaverify.cli\nimport sklearn.linear_model\nimport metaverify",
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert wrong_arrows("policies") == [
        "policies/a.py:1 imports numpy",
        "policies/a.py:2 imports metaverify.fitting.fit",
        "policies/a.py:3 imports metaverify.Policy",
        "policies/c.py:1 imports metaverify.simulators.log",
        "policies/c.py:4 imports metaverify.fitting.fit",
        "policies/integrations/b.py:2 imports metaverify.simulators.log",
    ]
    assert wrong_arrows("simulators") == ["simulators/d.py:2 imports scipy"]
    assert wrong_arrows("fitting") == ["fitting/e.py:1 imports metaverify.cli", "fitting/e.py:3 imports metaverify"]


@pytest.mark.parametrize(
    "statement",
    [
        "import metaverify, metaverify.policies.policy, metaverify.policies.file, metaverify.policies.episode",
        "from metaverify import Abstain, Accept, Action, BudgetError, Call, Episode, Policy, PolicyFileError, Verify",
        "from metaverify import load_policy, save_policy",
        "from metaverify import DecisionLog, Guard, Monitor, PolicyStore, Router, TokenBucket",
    ],
)
def test_deciding_loads_nothing_beside_the_standard_library(statement: str) -> None:
    script = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    loaded = ran.stdout.split()
    assert "metaverify.policies.policy" in loaded
    others = [name for name in loaded if name.partition(".")[0] not in {*sys.stdlib_module_names, "metaverify"}]
    assert others == []
    assert [name for name in loaded if under(name, "metaverify") and not under(name, "metaverify.policies")] == [
        "metaverify"
    ]


def test_every_public_name_can_be_had_and_no_other() -> None:
    import metaverify

    for name in metaverify.__all__:
        assert getattr(metaverify, name).__module__.startswith("metaverify.") or name == "Action"
    assert metaverify.__version__
    with pytest.raises(AttributeError, match="'nonsense'"):
        _ = metaverify.nonsense
