"""The same log gives the same bytes of policy, and a policy the same decisions, in every process, locale and Python."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from metaverify.fitting.fit import fit
from metaverify.policies.explain import action_json
from metaverify.policies.file import dump_policy
from metaverify.simulators.worlds import shared_difficulty

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"


def told() -> str:
    """A fitted policy's file, and what it decides in a few hundred states."""
    policy = fit(shared_difficulty(3, 5, missing=0.05).draw(150, 1), budget=5.0, folds=2, compare=False).policy
    names = [(tier.name, reading.name) for tier in policy.tiers for reading in tier.readings]
    states = ({tier: {name: (key * 37 % 101) / 100} for tier, name in names[: key % 4]} for key in range(400))
    decided = [action_json(policy.decide(state, key=key)) for key, state in enumerate(states)]
    return dump_policy(policy) + json.dumps(decided)


@pytest.fixture(scope="module")
def here() -> str:
    return told()


IN_A_LOCALE = """
import locale, sys
locale.setlocale(locale.LC_ALL, "")
from tests.test_everywhere import told
sys.stdout.buffer.write(f"{locale.localeconv()['decimal_point']} {1.5:n} {sys.flags.utf8_mode}\\n{told()}".encode())
"""


def elsewhere(**settings: str) -> tuple[str, str]:
    """The first line and the rest of what a process with these settings tells."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    command = [sys.executable, "-c", IN_A_LOCALE]
    ran = subprocess.run(command, cwd=ROOT, env=kept | settings, capture_output=True, check=True)
    first, _, rest = ran.stdout.decode().partition("\n")
    return first, rest


def test_another_hash_seed_in_the_plainest_locale_changes_nothing(here: str) -> None:
    first, rest = elsewhere(PYTHONHASHSEED="1", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert first == ". 1.5 0"
    assert rest == here


@pytest.fixture
def german(tmp_path: Path) -> str:
    """The folder of a German locale, in which a decimal point is a comma."""
    if shutil.which("localedef") is None:
        pytest.skip("no localedef to make a German locale with")
    command = ["localedef", "-i", "de_DE", "-f", "UTF-8", str(tmp_path / "de_DE.UTF-8")]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"localedef makes no German locale: {made.stderr.strip()}")
    return str(tmp_path)


def test_another_hash_seed_in_a_locale_with_decimal_commas_changes_nothing(here: str, german: str) -> None:
    first, rest = elsewhere(PYTHONHASHSEED="77", LC_ALL="de_DE.UTF-8", LOCPATH=german)
    assert first == ", 1,5 0"
    assert rest == here


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("method", [m for m in multiprocessing.get_all_start_methods() if m != "forkserver"])
def test_a_child_process_fits_and_decides_the_same(here: str, method: str) -> None:
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(told) == here


# ------------------------------------------------------------------------------------------------ every Python


def pythons() -> dict[tuple[int, int], str]:
    """The interpreters on this machine that are new enough, one a version."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    paths = [found for minor in range(11, 20) if (found := shutil.which(f"python3.{minor}")) is not None]
    paths += [str(path) for path in sorted(pyenv.glob("versions/3.*/bin/python3"))]
    found = {(sys.version_info.major, sys.version_info.minor): sys.executable}
    for path in paths:
        asked = subprocess.run([path, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
        if asked.returncode == 0:
            major, minor = map(int, asked.stdout.split())
            if (major, minor) >= (3, 11):
                found.setdefault((major, minor), path)
    return found


ROUTED = """
import asyncio, json, pathlib, sys
from metaverify import Call, DecisionLog, Guard, Look, Monitor, PolicyStore, Reply, Router, TokenBucket, load_policy
import metaverify.policies.file as file
golden, folder = map(pathlib.Path, sys.argv[1:])
for path in sorted(golden.glob("*.json")):
    policy = load_policy(path)
    assert file.dump_policy(policy).encode() == path.read_bytes()
    decisions = golden / ("decisions.jsonl" if path.stem == "policy" else f"{path.stem}.jsonl")
    for case in map(json.loads, decisions.read_text("utf-8").splitlines()):
        action = policy.decide(case["readings"], context=case["context"], key=case["key"])
        print(path.stem, action)

def call(tier, request):
    return Reply(f"{tier} {request}", {"self_verify": request % 7 / 6} if request % 5 else {})

def verify(tier, reading, request, answers):
    return Look(request % 11 / 10)

monitor, now = Monitor(), iter(range(10**9))
bucket = TokenBucket(2.0, 40.0, lambda: float(next(now)))
with DecisionLog(folder / "log.jsonl", clock=lambda: 0.0) as log:
    store = PolicyStore(golden / "policy.json")
    router = Router(store, call, verify, guard=Guard(30.0, bucket), monitor=monitor, log=log)
    for key in range(300):
        context = [None, "code", "other"][key % 3]
        one = router.route(key, key=key, context=context)
        two = asyncio.run(router.aroute(key, key=key, context=context)) if key % 50 == 0 else one
        print(one.answer, one.cost, one.reasons, two.answer)
assert log.dropped == 0
print(json.dumps(monitor.report(), sort_keys=True), monitor.prometheus(), (folder / "log.jsonl").read_text())
foreign = {name.partition(".")[0] for name in sys.modules} - {*sys.stdlib_module_names, "metaverify", "__main__"}
assert not foreign, foreign
assert "site" not in sys.modules
"""


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """A folder with what a router needs and nothing else."""
    (tmp_path / "package" / "metaverify").mkdir(parents=True)
    shutil.copy(ROOT / "metaverify" / "__init__.py", tmp_path / "package" / "metaverify")
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "policies", tmp_path / "package" / "metaverify" / "policies", ignore=skipped)
    return tmp_path


def test_every_python_on_the_machine_decides_routes_and_counts_the_same_without_any_package(staged: Path) -> None:
    found = pythons()
    if len(found) == 1:
        pytest.skip("no other Python from 3.11 on is on this machine")
    answers = {}
    for version, path in found.items():
        folder = staged / "{}.{}".format(*version)
        folder.mkdir()
        ran = subprocess.run(
            [path, "-S", "-B", "-W", "error", "-c", ROUTED, GOLDEN, folder],
            env={"PYTHONPATH": str(staged / "package"), "PYTHONHASHSEED": str(version[1])},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, (path, ran.stderr)
        answers[version] = ran.stdout
    assert len(set(answers.values())) == 1, {version: hash(answer) for version, answer in answers.items()}
    assert answers[min(answers)].count("\n") > 1000
