"""The example of a proxy does what it says, and its policy is the one that its script makes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "litellm_proxy"


def run(script: str, folder: Path) -> str:
    """What a script of the example says, run in a copy of it."""
    copy = shutil.copytree(EXAMPLE, folder / "example", ignore=shutil.ignore_patterns("*.log", "*.jsonl"))
    ran = subprocess.run([sys.executable, copy / script], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_the_example_asks_a_proxy_and_shows_what_answers_cost(tmp_path: Path) -> None:
    said = run("run.py", tmp_path)
    rows = re.findall(r"^What is (\d+) ([+*]) (\d+)\? +(\d+) +([\d.]+)   (.*)$", said, re.MULTILINE)
    assert len(rows) == 6
    for a, sign, b, answer, cost, trail in rows[:5]:
        assert int(answer) == (int(a) + int(b) if sign == "+" else int(a) * int(b))
        prices = {"small": 0.062, "medium": 0.41, "judge": 0.03, "large": 2.04}
        bought = [step.split()[0] for step in trail.split(" > ") if not step.startswith("accept")]
        assert float(cost) == pytest.approx(sum(prices[name] for name in bought), abs=5e-4)
    assert rows[5][4:] == ("0.062", rows[5][5])  # with a budget of .1 only small is asked
    assert "400: litellm.BadRequestError: E_BUDGET: budget 0.001 is below 0.062" in said
    assert "as a stream: 3 5 1 2 2 6 2\n" in said


@pytest.mark.slow
def test_the_examples_policy_is_what_its_script_makes(tmp_path: Path) -> None:
    run("make_policy.py", tmp_path)
    assert (tmp_path / "example" / "policy.json").read_bytes() == (EXAMPLE / "policy.json").read_bytes()
