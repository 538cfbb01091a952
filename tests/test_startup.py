"""What starts fast imports little: a few modules of the standard library, what those import, and metaverify's own."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
POLICY = str(ROOT / "tests" / "golden" / "policy.json")

RUN_TIME = ("__future__", "bisect", "collections.abc", "dataclasses", "functools", "hashlib", "importlib", "itertools")
RUN_TIME += ("json", "math", "operator", "os", "re", "stat", "types")
COMMANDS = (*RUN_TIME, "argparse", "contextlib", "gettext", "glob", "io", "keyword", "pathlib", "shutil", "textwrap")
COMMANDS += ("signal", "typing", "unicodedata", "locale")  # the last is argparse's


@cache
def loaded(code: str) -> frozenset[str]:
    """The modules that a fresh interpreter has imported after some code, whose output is passed over."""
    script = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}\nprint('\\n', *sys.modules)"
    ran = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True)
    return frozenset(ran.stdout.splitlines()[-1].split())


def beyond(code: str, allowed: tuple[str, ...]) -> list[str]:
    """What some code imports beside metaverify's own and what the allowed modules import."""
    known = loaded(f"import {', '.join(allowed)}")
    return sorted(name for name in loaded(code) - known if name.partition(".")[0] != "metaverify")


def command(*argv: str) -> str:
    """A command of the command line, to its end."""
    return f"""
from metaverify.cli import main
try:
    assert main({list(argv)!r}) == 0
except SystemExit as end:
    assert end.code == 0
"""


@pytest.mark.parametrize("statement", ["import metaverify", "from metaverify import load_policy"])
def test_the_run_time_imports_no_more_than_it_needs(statement: str) -> None:
    assert beyond(statement, RUN_TIME) == []


def test_the_package_alone_imports_nothing_to_speak_of() -> None:
    assert beyond("import metaverify", ("__future__", "importlib")) == []


def test_loading_and_deciding_import_no_more_either() -> None:
    assert beyond(f"from metaverify import load_policy\nload_policy({POLICY!r}).decide({{}}, key='a')", RUN_TIME) == []


@pytest.mark.parametrize(
    "argv",
    [
        ("--help",),
        ("decide", "--help"),
        ("decide", POLICY, '{"small": 0.5}', "--key", "a"),
        ("decide", POLICY, '{"small": 0.5}', "--key", "a", "--explain", "--json"),
        ("show", POLICY),
    ],
    ids=lambda argv: " ".join(word for word in argv if len(word) < 20),
)
def test_commands_that_learn_nothing_import_nothing_heavy(argv: tuple[str, ...]) -> None:
    assert beyond(command(*argv), COMMANDS) == []


def test_what_is_too_much_is_seen() -> None:
    assert {"asyncio", "socket"} <= set(beyond("import asyncio", COMMANDS))
