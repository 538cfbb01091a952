"""A share of the benchmark of certificates: in worlds whose truth is known promises are kept as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from metaverify.fitting.chain import Thresholds
from tests.benchmarks import certify as bench

TRIALS = 100


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learnt by a quick learner is certified as anything else."""
    monkeypatch.setattr(bench, "LEARNER", Thresholds())


def test_prices_that_are_cut_off_have_the_mean_that_draws_have() -> None:
    true = bench.truth("token_prices-3")
    drawn = true.draw(40_000, 1)
    for tier, exact in zip(drawn.tiers, true.log.tiers, strict=True):
        error = float(tier.cost.std()) / np.sqrt(len(drawn))
        assert abs(drawn.mean(tier.cost) - true.log.mean(exact.cost)) < 4 * error
        assert tier.cost.max() <= bench.CUT_OFF * bench.tier_cost(true.world)[true.world.tiers.index(tier.name)]


def test_the_frontier_is_what_no_tier_is_above() -> None:
    true = bench.truth("token_prices-3")
    for tier in true.log.tiers:
        assert true.best(true.log.mean(tier.cost)) >= true.log.mean(tier.correct) - 1e-6


def test_one_trial_tries_everything() -> None:
    row = bench.trial("shared_difficulty-2", 100, 0, True)
    ways = {way.rpartition(" ")[0] for way in row["found"] if way[-1].isdigit()}
    assert ways == {"traffic", "split", "split, bentkus", "split, e-process", "approximate", "floor"}
    assert {"plug-in", "optuna", "floor plug-in"} <= row["found"].keys()
    assert row["found"]["approximate 0.1"] == "E_FEW"  # below 300 groups


@pytest.mark.slow
@pytest.mark.parametrize("world", bench.WORLDS_TRIED)
def test_budgets_and_floors_are_kept_as_often_as_promised(world: str) -> None:
    rows = [bench.trial(world, 300, seed, others=False) for seed in range(TRIALS)]
    seen = {summary.way: summary for summary in bench.summaries(rows)}
    for way, found in seen.items():
        if way[-1].isdigit():
            delta = float(way.rpartition(" ")[2]) + (0.03 if way.startswith("approximate") else 0.0)
            assert binom.sf(found.broken - 1, found.tried, delta) > 0.001, found
    assert seen["plug-in"].broken > 0.25 * TRIALS
    assert seen["traffic 0.1"].lost < seen["split 0.1"].lost


@pytest.mark.slow
def test_prompts_asked_ten_times_keep_the_budget_where_groups_are_told() -> None:
    rows = [bench.grouped(seed) for seed in range(TRIALS)]
    seen = {summary.way: summary for summary in bench.summaries(rows)}
    for delta in bench.DELTAS:
        told = seen[f"told {delta:g}"]
        assert binom.sf(told.broken - 1, told.tried, delta) > 0.001, told
    assert seen["not told 0.1"].broken > 0.15 * TRIALS
