"""Every module can be imported, and every example in a docstring shows what really comes out."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import metaverify
import metaverify.fitting
import metaverify.policies
import metaverify.simulators

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (metaverify, metaverify.policies, metaverify.simulators, metaverify.fitting)
SCRIPTS = {"metaverify.__main__"}  # importing it runs the command line


def fail_to_import(name: str) -> None:
    raise ImportError(name)


MODULES = sorted(
    {package.__name__ for package in PACKAGES}
    | {
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.", onerror=fail_to_import)
    }
    - SCRIPTS
)


def test_no_module_is_left_out() -> None:
    files = {path for room in ("policies", "simulators", "fitting") for path in (ROOT / room).rglob("*.py")}
    names = {".".join(["metaverify", *path.relative_to(ROOT).with_suffix("").parts]) for path in files}
    faces = {f"metaverify.{path.stem}" for path in (ROOT / "metaverify").glob("*.py")} | {"metaverify.page"}
    faces |= {f"metaverify.commands.{path.stem}" for path in (ROOT / "metaverify" / "commands").glob("*.py")}
    assert {name.removesuffix(".__init__") for name in names | faces} - SCRIPTS == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert failed == 0, "see the report above"
    assert list(tmp_path.iterdir()) == [], "an example leaves a file behind"
