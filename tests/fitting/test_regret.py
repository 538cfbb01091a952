"""The benchmark of regret: its truth is the world's own, and nobody beats it."""

from __future__ import annotations

import numpy as np
import pytest
from joblib import parallel_config

from metaverify.fitting.coding import code_log
from metaverify.fitting.export import keep_vertices
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.table import JointTable
from metaverify.simulators.references import no_information_hull
from metaverify.simulators.worlds import WORLDS, tier_cost, tier_quality
from tests.benchmarks.regret import CANDIDATES, LEVELS, Cell, census, regrets, run, sweep, truth
from tests.fitting.oracles import best_curve, curve_at, table_of_world


@pytest.mark.parametrize("options", [{}, {"missing": 0.2}, {"reading_prices": (0.0, 0.3)}], ids=str)
@pytest.mark.parametrize("name", WORLDS)
def test_a_census_is_the_worlds_table(name: str, options: dict) -> None:
    world = WORLDS[name](2, 3, **options)
    log, exact = census(world), table_of_world(world)
    table = Counts().table(code_log(log, exact.ladders))
    np.testing.assert_allclose(table.mass, exact.mass, atol=1e-12)
    for found, expected in zip(table.quality, exact.quality, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)
    for found, expected in zip(table.price, exact.price, strict=True):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(_expected(one, table), _expected(other, exact), atol=1e-12)


def _expected(price: float | np.ndarray, table: JointTable) -> np.ndarray:
    return price * table.mass if isinstance(price, float) else price


@pytest.mark.parametrize("name", ["hopeless", "token_prices"])
def test_the_optimum_is_that_of_all_decision_trees(name: str) -> None:
    true = truth(f"{name}-2")
    curve = best_curve(table_of_world(WORLDS[name](2, LEVELS)))
    for budget in true.budgets:
        assert np.interp(budget, *true.frontier) == pytest.approx(curve_at(curve, budget), abs=2e-5)


def test_who_knows_the_truth_regrets_nothing_and_who_reads_nothing_loses_what_reading_gains() -> None:
    true = truth("hopeless-3")
    knowing = TableLearner(model=Counts(), bins=LEVELS, slack=0.0, gap=1e-5).policy(true.log)
    assert regrets(true, knowing) == pytest.approx([0.0] * 5, abs=2e-5)
    blind = TableLearner(read=False, slack=0.0).policy(true.log)
    hull = no_information_hull(true.log)
    lost = [float(np.interp(budget, *true.frontier)) - hull.quality(budget) for budget in true.budgets]
    assert regrets(true, blind) == pytest.approx(lost, abs=1e-9)


def test_a_budget_that_is_left_is_charged_for() -> None:
    true = truth("shared_difficulty-3")
    cheapest = TableLearner(read=False).policy(true.log)
    only = keep_vertices(cheapest, cheapest.vertices[:1])
    quality, cost = tier_quality(true.world), tier_cost(true.world)
    assert only.vertices[0].cost == pytest.approx(cost[0])
    expected = [float(np.interp(0.95 * budget, *true.frontier)) - quality[0] for budget in true.budgets]
    assert regrets(true, only) == pytest.approx(expected, abs=1e-9)


def test_a_sweep_gives_each_cell_what_it_gives_alone() -> None:
    cells = [Cell("independent-2", 60, draw, name) for draw in (0, 1) for name in ("Counts", "Patterns")]
    with parallel_config(backend="threading", n_jobs=2):
        found = sweep(cells, CANDIDATES)
    assert list(found) == cells
    assert found == {cell: run(cell, CANDIDATES[cell.candidate]) for cell in cells}
    assert all(regret > -1e-3 for regret in found.values())
