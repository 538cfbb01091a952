"""The wheel holds the whole house, with or without the links, and decides in an environment that has nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
ROOMS = ("policies", "simulators", "fitting")
NOT_COPIED = shutil.ignore_patterns(
    *(".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "bench-results")
)

REPLAY = """
import json, sys
before = set(sys.modules)
import metaverify.policies, metaverify.policies.file as file
from metaverify import Abstain, Accept, Call, Verify
foreign = {name.partition(".")[0] for name in set(sys.modules) - before} - {*sys.stdlib_module_names, "metaverify"}
assert not foreign, foreign
policy = file.load_policy(sys.argv[1])
count = 0
for line in open(sys.argv[2], encoding="utf-8"):
    case = json.loads(line)
    action = policy.decide(case["readings"], context=case["context"], key=case["key"])
    match case["action"]:
        case {"action": "call", "tier": tier}:
            wanted = Call(tier)
        case {"action": "verify", "tier": tier, "reading": reading}:
            wanted = Verify(tier, reading)
        case {"action": "accept", "tier": tier}:
            wanted = Accept(tier)
        case _:
            wanted = Abstain()
    assert action == wanted, (case, action)
    count += 1
print(count, file.__file__)
"""


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run to the end, away from this repository, its environment and the network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV"))}
    kept |= {"PYTHONUTF8": "1"}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=kept, capture_output=True, text=True, encoding="utf-8"
    )


def build(source: Path, into: Path) -> Path:
    """The wheel of a source tree."""
    options = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    built = run(sys.executable, "-m", "pip", "wheel", *options, "-w", into, source, cwd=into.parent)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = into.glob("*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=NOT_COPIED)
    return build(folder / "source", folder / "out")


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    made = run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stderr
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    options = ("--no-deps", "--no-index", "--disable-pip-version-check")
    put = run(sys.executable, "-m", "pip", "--python", python, "install", *options, wheel, cwd=folder)
    assert put.returncode == 0, put.stdout + put.stderr
    return python


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    found = contents(wheel)
    sources = {f"metaverify/{path.name}": path for path in (ROOT / "metaverify").glob("*.py")}
    sources |= {f"metaverify/commands/{path.name}": path for path in (ROOT / "metaverify" / "commands").glob("*.py")}
    for room in ROOMS:
        paths = [path for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts]
        sources |= {f"metaverify/{path.relative_to(ROOT).as_posix()}": path for path in paths}
    page = {f"metaverify/page/{path.name}" for path in (ROOT / "metaverify" / "page").iterdir() if path.is_file()}
    assert {Path(name).suffix for name in page} == {".py", ".html", ".css", ".js"}
    wanted = {*sources, *page, "metaverify/py.typed", "metaverify/simulators/digits.csv.gz"}
    assert {name for name in found if ".dist-info/" not in name} == wanted
    for name in ("metaverify/py.typed", *page, "metaverify/simulators/digits.csv.gz"):
        assert found[name] == (ROOT / name.removeprefix("metaverify/" if "digits" in name else "")).read_bytes()


def test_the_wheel_needs_nothing_unless_an_extra_is_asked_for(wheel: Path) -> None:
    (name,) = (name for name in contents(wheel) if name.endswith(".dist-info/METADATA"))
    metadata = Parser().parsestr(contents(wheel)[name].decode())
    assert [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need] == []
    assert "fit" in metadata.get_all("Provides-Extra", [])
    assert wheel.name.endswith("-py3-none-any.whl")


def test_a_checkout_without_links_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(wheel.parents[1] / "source", source, symlinks=True, ignore=NOT_COPIED)
    for room in ROOMS:
        link = source / "metaverify" / room
        assert link.is_symlink()
        link.unlink()
    assert contents(build(source, tmp_path / "out")) == contents(wheel)


def test_a_bare_environment_decides_as_the_golden_file_says(python: Path, tmp_path: Path) -> None:
    ran = run(python, "-I", "-c", REPLAY, GOLDEN / "policy.json", GOLDEN / "decisions.jsonl", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    count, place = ran.stdout.split(maxsplit=1)
    assert int(count) == len((GOLDEN / "decisions.jsonl").read_text("utf-8").splitlines())
    assert Path(place.strip()).is_relative_to(python.parents[1].resolve())


def test_a_bare_environment_runs_the_commands_that_only_decide(python: Path, tmp_path: Path) -> None:
    assert run(python, "-m", "metaverify", "--help", cwd=tmp_path).returncode == 0
    script = python.with_name("metaverify.exe" if os.name == "nt" else "metaverify")
    assert run(script, "--help", cwd=tmp_path).stdout == run(python, "-m", "metaverify", "--help", cwd=tmp_path).stdout
    cases = [json.loads(line) for line in (GOLDEN / "decisions.jsonl").read_text("utf-8").splitlines()]
    for case in cases[::20]:
        options = [] if case["context"] is None else ["--context", case["context"]]
        ran = run(
            *(python, "-m", "metaverify", "decide", GOLDEN / "policy.json", json.dumps(case["readings"])),
            *("--key", str(case["key"]), "--json", *options),
            cwd=tmp_path,
        )
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout) == case["action"]
    assert run(python, "-m", "metaverify", "show", GOLDEN / "policy.json", cwd=tmp_path).returncode == 0
    assert run(python, "-m", "metaverify", "report", GOLDEN / "policy.json", cwd=tmp_path).returncode == 0
    assert (tmp_path / "report.html").read_text("utf-8").startswith("<!doctype html>")


def test_a_command_that_needs_the_extra_says_so(python: Path, tmp_path: Path) -> None:
    for command in (["demo"], ["fit", "log.csv", "--budget", "1"], ["inspect", "log.csv"]):
        ran = run(python, "-m", "metaverify", *command, cwd=tmp_path)
        assert ran.returncode == 1
        assert "metaverify[fit]" in ran.stderr
        assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []
