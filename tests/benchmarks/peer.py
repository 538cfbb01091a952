"""metaverify beside automix-llm 1.0.3, where that is installed."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from metaverify.fitting.fit import fit
from metaverify.fitting.learner import TableLearner
from metaverify.simulators.log import LoggedReading, LoggedTier, ReplayLog
from metaverify.simulators.outcome import replay
from metaverify.simulators.worlds import shared_difficulty
from tests.benchmarks.timing import Goal, Line, Section, compare, turns

SMALL, LARGE, VERIFY = 1, 50, 1  # its own default prices
BUDGET = 20.0
TITLE = "Beside automix-llm, two tiers"


def beside_automix() -> Section:
    """Fit and evaluation on the same rows, by size."""
    try:
        installed = version("automix-llm")
    except PackageNotFoundError:
        return Section(TITLE, "left out", "", (), ("automix-llm is not installed: pip install automix-llm==1.0.3",))
    lines: list[Line] = []
    for rows in (1_000, 10_000, 100_000):
        lines += _lines(_votes(rows))
    return Section(
        TITLE,
        "fit: TableLearner().policy, one pass without folds that yields the whole frontier, and "
        f"fit(budget={BUDGET:g}, compare=False), the same cross-fitted in 5 folds; evaluate: replay, with intervals",
        f"automix-llm {installed}, Automix(POMDP(num_bins=8)), a union of four methods: train on all rows, one pass "
        "without folds that yields one policy; evaluate on all rows",
        tuple(lines),
    )


def _votes(rows: int) -> ReplayLog:
    """Two tiers at its prices; the small one's confidence is a share of 8 votes, had and paid with the answer."""
    drawn = shared_difficulty(2, 9).draw(rows, 0)
    small, large = drawn.tiers
    votes = np.floor(small.readings[0].confidence * 9) / 8
    free = LoggedReading("conf", votes, np.zeros(rows))
    tiers = (
        LoggedTier("small", small.correct, np.full(rows, float(SMALL + VERIFY)), (free,)),
        LoggedTier("large", large.correct, np.full(rows, float(LARGE))),
    )
    return replace(drawn, tiers=tiers)


def _frame(log: ReplayLog) -> Any:
    """The log as the data frame that it reads, under its default column names."""
    import pandas as pd

    small, large = (tier.correct for tier in log.tiers)
    kinds = [small < large, (small == large) & (small != 0), (small == 0) & (large == 0)]
    category = np.select(kinds, ["NEEDY", "GOOD", "HOPELESS"], default="UNDEFINED")
    votes = log.tiers[0].readings[0].confidence
    return pd.DataFrame({"llama13b_f1": small, "llama70b_f1": large, "p_ver_13b": votes, "category": category})


def _lines(log: ReplayLog) -> list[Line]:
    from automix import POMDP, Automix

    frame = _frame(log)
    mixer = Automix(POMDP(num_bins=8), costs=[SMALL, LARGE], verifier_cost=VERIFY)
    mixer.train(frame)
    policy = TableLearner().policy(log).at(budget=BUDGET)
    learning = turns(
        lambda: mixer.train(frame),
        lambda: TableLearner().policy(log),
        lambda: fit(log, budget=BUDGET, compare=False),
        count=7,
        most=15.0,
    )
    scoring = turns(lambda: mixer.evaluate(frame, return_dict=True), lambda: replay(policy, log), count=7, most=30.0)
    size, goal = f"{len(log):,} rows", Goal(ratio=1 / 20)
    evaluated = Goal(ratio=1 / 1000) if len(log) >= 100_000 else None
    return [
        compare(f"{size}: TableLearner().policy / train", learning, goal=goal, ours=1, yardstick=0),
        compare(f"{size}: fit / train", learning, goal=goal, ours=2, yardstick=0),
        compare(f"{size}: replay / evaluate", scoring, goal=evaluated, ours=1, yardstick=0),
    ]
