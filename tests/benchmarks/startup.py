"""What starting costs: imports of the run time, and commands that learn nothing, in fresh interpreters.

Run as ``python -m tests.benchmarks.startup`` from the root of the repository.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.benchmarks.timing import Goal, Line, Section, layout

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "tests" / "golden" / "policy.json"
RUNS = 20

BARE = ("-S", "-c", "pass")  # without `site`, which in an editable installation imports part of what is measured
RUN_TIME = Goal(seconds=0.015)
COMMAND = Goal(seconds=0.150)
DEAREST = 8  # modules that are named

IMPORTS = {
    "import metaverify": RUN_TIME,
    "from metaverify import load_policy": RUN_TIME,
    "import dataclasses, hashlib, json": None,
}
COMMANDS = {
    "metaverify --help": ("--help",),
    "metaverify decide": ("decide", str(POLICY), '{"small": 0.5}', "--key", "a"),
    "metaverify decide --explain": ("decide", str(POLICY), '{"small": 0.5}', "--key", "a", "--explain"),
}


def starting() -> Section:
    """CPU time of fresh interpreters, the bytecode of all modules in a cache of its own; every side once a turn."""
    sides = {"bare": BARE, **{code: ("-S", "-c", code) for code in IMPORTS}}
    sides |= {name: ("-m", "metaverify", *argv) for name, argv in COMMANDS.items()}
    with tempfile.TemporaryDirectory() as cache:
        runs = [{name: _spent(cache, side) for name, side in sides.items()} for _ in range(RUNS + 1)][1:]
        bare = median(run["bare"] for run in runs)
        lines = [
            Line(code, median(run[code] - run["bare"] for run in runs), bare, goal=goal, note="beyond bare Python")
            for code, goal in IMPORTS.items()
        ]
        lines += [Line(name, median(run[name] for run in runs), goal=COMMAND, note="all of it") for name in COMMANDS]
        timed = [_import_times(cache, code) for code in ("pass", "from metaverify import load_policy")]
    beyond = {name: time for name, time in timed[1].items() if name not in timed[0]}
    dearest = sorted(beyond, key=lambda name: -beyond[name])[:DEAREST]
    total = f"{sum(beyond.values()):.1f}"
    told = ", ".join(f"{name} {beyond[name]:.1f}" for name in dearest)
    return Section(
        "Starting",
        f"medians over {RUNS} runs of the process's CPU time, its end included",
        "python -S -c pass",
        tuple(lines),
        (f"load_policy by -X importtime, beyond bare Python, each module at its best: {total} ms; {told}",),
    )


def _spent(cache: str, arguments: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run(cache, arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _import_times(cache: str, code: str) -> dict[str, float]:
    """Each module's own time in milliseconds, which is told of the wall: the best of `RUNS`."""
    found: dict[str, list[int]] = {}
    for _ in range(RUNS):
        for line in _run(cache, ("-S", "-X", "importtime", "-c", code)).splitlines():
            own, _, name = line.removeprefix("import time:").split("|")
            if own.strip().isdigit():
                found.setdefault(name.strip(), []).append(int(own))
    return {name: min(times) / 1e3 for name, times in found.items()}


def _run(cache: str, arguments: Sequence[str]) -> str:
    """What a fresh interpreter prints on stderr."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = {**kept, "PYTHONPYCACHEPREFIX": cache}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stderr


if __name__ == "__main__":
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print(layout(starting()))
