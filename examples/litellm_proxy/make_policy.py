"""Asks every tier 3,000 questions, grades the answers, and fits the policy of this example: writes policy.json."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import mock_tiers
import polars as pl

from metaverify import fit, read_log, save_policy

HERE = Path(__file__).parent
TIERS = {"small": 0.062, "medium": 0.41, "large": 2.04}  # thousandths of a dollar for a call
JUDGE = 0.03


def questions(count: int, seed: int) -> list[str]:
    """Half of them easy, a third middling, the others hard."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        small, other, large = rng.randint(2, 9), rng.randint(100, 999), rng.randint(1000, 9999)
        kind = rng.choices(["easy", "middling", "hard"], [3, 2, 1])[0]
        sums = {"easy": f"{small} + {other}", "middling": f"{small} * {other}", "hard": f"{other} * {large}"}
        made.append(f"What is {sums[kind]}?")
    return made


def log(count: int, seed: int) -> pl.DataFrame:
    """One row a question, with every tier's answer graded."""
    rows = []
    for number, question in enumerate(questions(count, seed)):
        row: dict[str, float | str] = {"query_id": f"question {number}"}
        for tier, cost in TIERS.items():
            said, sure = mock_tiers.answer(tier, question)
            row |= {f"correct_{tier}": float(said == mock_tiers.truth(question)), f"cost_{tier}": cost}
            if tier != "large":
                row[f"conf_{tier}"] = sure
            if tier == "medium":
                row |= {"conf_judge_medium": mock_tiers.grade(question, said) / 100, "verify_cost_judge_medium": JUDGE}
        rows.append(row)
    return pl.DataFrame(rows)


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.parquet"
        log(3000, seed=1).write_parquet(path)
        fitted = fit(read_log(path), budget=0.6)
    save_policy(replace(fitted.policy, serial=1), HERE / "policy.json")
    quality, cost = fitted.outcome.quality.mean, fitted.outcome.cost.mean
    print(f"quality {quality:.3f} at {cost:.3f} thousandths of a dollar a request; large alone costs {TIERS['large']}")
