"""Mutants of the code under policies/: ``python -m tests.policies.mutation [file ...]`` (``make mutation``).

mutmut makes them and runs, for each, the tests of the file that it is a mutant of, until one of them fails.  Each file
has a folder of its own in build/mutation, links to the repository and mutmut's copy, in which what was found is kept: a
run that was stopped goes on, what lived is tried again, and what was killed is not, unless its function has changed;
with ``--anew`` it is too.

mutmut leaves alone what stands outside functions and in decorated ones (properties, `lru_cache`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STAGES = ROOT / "build" / "mutation"
ENOUGH = 90.0  # per cent

TESTS = {  # the tests that a mutant of a file is held against
    "certificate": ("certificate",),
    "context": ("context",),
    "decision_log": ("decision_log",),
    "document": ("file", "document", "storage"),
    "drawing": ("drawing",),
    "episode": ("episode",),
    "explain": ("explain", "fused"),
    "exploration": ("exploration",),
    "exposition": ("exposition",),
    "file": ("file", "fused", "golden", "storage", "certificate", "outage"),
    "forks": ("store", "forks"),
    "graph": ("graph", "fused", "episode", "outage"),
    "guards": ("guards",),
    "monitor": ("monitor", "outage"),
    "names": ("file", "names"),
    "policy": ("policy", "context", "golden", "outage", "certificate"),
    "router": ("router", "guards", "outage", "exploration"),
    "signatures": ("signatures",),
    "storage": ("storage", "file"),
    "store": ("store",),
    "threads": ("threads", "router"),
    "tiers": ("fused",),
}
NO_TESTS = 33  # mutmut's word for a mutant that no test comes by


def stage_of(name: str) -> Path:
    """The folder in which mutmut works on a file: links, and what it is to do."""
    stage = STAGES / name
    stage.mkdir(parents=True, exist_ok=True)
    for linked in ("metaverify", "policies", "tests", "docs"):
        if not (stage / linked).is_symlink():
            (stage / linked).symlink_to(ROOT / linked)
    beside = sorted({path.name for path in (ROOT / "metaverify").iterdir()} - {"policies", "__pycache__"})
    tests = [f"tests/policies/test_{test}.py" for test in TESTS[name]]
    settings = {
        "source_paths": ["metaverify/policies"],
        "only_mutate": [f"metaverify/policies/{name}.py"],
        "also_copy": ["policies", "docs", *(f"metaverify/{path}" for path in beside)],
        "pytest_add_cli_args": ["-m", "not slow", "-p", "no:cacheprovider"],
        "pytest_add_cli_args_test_selection": [test for test in tests if (ROOT / test).exists()],
        "timeout_multiplier": 5.0,
        "timeout_constant": 2.0,
        "track_dependencies": False,
        "use_git_change_detection": False,
    }
    ours = (ROOT / "pyproject.toml").read_text("utf-8")
    table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    (stage / "pyproject.toml").write_text(f"{ours}\n[tool.mutmut]\n{table}", "utf-8")
    return stage


def verdicts(stage: Path) -> dict[str, int | None]:
    """Each mutant, and the exit code of its tests: 0 where it lives, None where it was not tried yet."""
    (found,) = (stage / "mutants" / "metaverify" / "policies").glob("[a-z]*.meta")
    codes: dict[str, int | None] = json.loads(found.read_text("utf-8"))["exit_code_by_key"]
    return codes


def run_mutmut(stage: Path, names: list[str], until: float, workers: int) -> None:
    """Try these mutants, or as many as can be tried until then."""
    quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "EXAMPLES": "0.1"}
    command = [str(Path(sys.executable).with_name("mutmut")), "run", "--max-children", str(workers), *names]
    with (stage / "mutmut.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=stage, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True
        )
        try:
            process.wait(max(until - time.monotonic(), 1.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for a mutant that never ends
                process.wait(10)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode not in (0, -signal.SIGINT, -signal.SIGKILL):
        raise SystemExit(f"mutmut failed on {stage.name}: see {stage / 'mutmut.log'}")


def tried(name: str, share: float, seed: int, until: float, workers: int, anew: bool) -> dict[str, int | None]:
    """The share of a file's mutants that is looked at, and what became of them."""
    stage = stage_of(name)
    if anew:
        shutil.rmtree(stage / "mutants", ignore_errors=True)
    run_mutmut(
        stage, [f"metaverify.policies.{name}.*__mutmut_1"], until, workers
    )  # of each function; makes all the others
    names = sorted(verdicts(stage))
    chosen = random.Random(f"{seed} {name}").sample(names, math.ceil(share * len(names)))
    left = [mutant for mutant in chosen if verdicts(stage)[mutant] in (None, 0, NO_TESTS)]
    if left and time.monotonic() < until:
        run_mutmut(stage, left, until, workers)
    codes = verdicts(stage)
    return {mutant: codes[mutant] for mutant in chosen if mutant in codes}  # the file may have changed meanwhile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", choices=[[], *TESTS], help="of policies/; all of them by default")
    parser.add_argument("--share", type=float, default=1.0, help="of each file's mutants")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--minutes", type=float, default=120.0, help="at most; go on with the same command")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--anew", action="store_true", help="forget what was found before")
    options = parser.parse_args()
    until = time.monotonic() + 60.0 * options.minutes
    survivors: list[str] = []
    killed = judged = 0
    print(f"{'file':<14} {'tried':>5} {'of':>5} {'killed':>6}  score")
    for name in options.files or TESTS:
        if time.monotonic() > until:
            print(f"{name:<14} not tried: no time left")
            continue
        codes = tried(name, options.share, options.seed, until, options.workers, options.anew)
        known = {mutant: code for mutant, code in codes.items() if code is not None}
        living = sorted(mutant for mutant, code in known.items() if code in (0, NO_TESTS))
        survivors += living
        killed, judged = killed + len(known) - len(living), judged + len(known)
        score = 100.0 * (1.0 - len(living) / max(len(known), 1))
        print(f"{name:<14} {len(known):>5} {len(codes):>5} {len(known) - len(living):>6}  {score:.1f} %", flush=True)
    score = 100.0 * killed / max(judged, 1)
    print(f"{'all':<14} {judged:>5} {'':>5} {killed:>6}  {score:.1f} %")
    for mutant in survivors:
        print(f"lives: {mutant}  (cd build/mutation/{mutant.split('.')[2]} && mutmut show {mutant})")
    if score < ENOUGH:
        raise SystemExit(f"fewer than {ENOUGH:g} % of the mutants were killed")


if __name__ == "__main__":
    main()
