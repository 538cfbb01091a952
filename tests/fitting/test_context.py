"""A table for each context, shrunk towards the pooled one, or its qualities moved by an offset."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from metaverify.fitting.coding import CodedLog, code_log, ladders_of
from metaverify.fitting.context import FEWEST, SPREAD, contextual_table, quality_offsets
from metaverify.fitting.frontier import trace_frontier
from metaverify.fitting.lattice import Lattice
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.models.copula import Copula
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.table import JointTable
from metaverify.simulators.log import LoggedReading, LoggedTier, ReplayLog
from tests.strategies import random_log

EXACT = 1e-12


def coded_log(log: ReplayLog, contexts: tuple[str, ...]) -> CodedLog:
    return code_log(log, ladders_of(log, 3), contexts)


def price(table: JointTable, s: int, j: int) -> np.ndarray:
    found = table.price[s][j]
    return found if isinstance(found, np.ndarray) else found * table.mass


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("kappa", [0.0, 30.0, 1e12])
def test_a_contexts_table_is_its_own_and_kappa_pooled_rows(kappa: float, varying: bool) -> None:
    log = random_log(150, 0, contexts=3, weighted=True, varying=varying, scored=True)
    coded = coded_log(log, ("c0", "c1", "c2"))
    table, pooled = contextual_table(Counts(), coded, kappa=kappa), Counts().table(coded)
    np.testing.assert_allclose(table.mass[0], pooled.mass[0], atol=EXACT)
    for row in range(3):
        own = Counts().table(coded.take(coded.context == row))
        n = float(log.weights[log.contexts == f"c{row}"].sum())

        def shrunk(left: np.ndarray, right: np.ndarray, n: float = n) -> np.ndarray:
            return (n * left[0] + kappa * right[0]) / (n + kappa)

        np.testing.assert_allclose(table.mass[1 + row], shrunk(own.mass, pooled.mass), atol=EXACT)
        for s, ladder in enumerate(table.ladders):
            expected = shrunk(own.quality[s], pooled.quality[s])
            np.testing.assert_allclose(table.quality[s][1 + row], expected, atol=EXACT)
            for j in range(len(ladder.rungs)):
                expected = shrunk(price(own, s, j), price(pooled, s, j))
                np.testing.assert_allclose(price(table, s, j)[1 + row], expected, atol=EXACT)


def test_shares_are_those_of_the_traffic_and_the_pooled_row_has_what_is_unknown() -> None:
    log = random_log(120, 1, contexts=3, weighted=True)
    table = contextual_table(Counts(), coded_log(log, ("c0", "c2")))
    weight = [log.weights[log.contexts == c].sum() for c in ("c1", "c0", "c2")]
    assert table.contexts == ("c0", "c2")
    assert table.share == pytest.approx([w / log.weights.sum() for w in weight], abs=EXACT)


def test_a_context_of_few_rows_takes_the_pooled_table() -> None:
    log = random_log(100, 2)
    labels = np.array(["few" if row < FEWEST - 1 else "many" for row in range(100)], dtype=object)
    table = contextual_table(Counts(), coded_log(replace(log, contexts=labels), ("few", "many")), kappa=0.0)
    assert (table.mass[1] == table.mass[0]).all()
    assert (table.mass[2] != table.mass[0]).any()
    enough = np.array(["few" if row < FEWEST else "many" for row in range(100)], dtype=object)
    table = contextual_table(Counts(), coded_log(replace(log, contexts=enough), ("few", "many")), kappa=0.0)
    assert (table.mass[1] != table.mass[0]).any()


def test_a_context_that_no_row_has_takes_the_pooled_table() -> None:
    table = contextual_table(Counts(), coded_log(random_log(60, 3, contexts=2), ("c0", "c1", "new")))
    assert (table.mass[3] == table.mass[0]).all()
    assert table.share[3] == 0.0


def test_without_contexts_the_table_is_the_pooled_one() -> None:
    coded = coded_log(random_log(60, 4), ())
    assert (contextual_table(Counts(), coded).mass == Counts().table(coded).mass).all()


def test_a_context_in_which_the_small_tier_is_always_right_never_calls_the_large_one() -> None:
    log = random_log(400, 5, readings=("free", ""))
    labels = np.array(["easy" if right else "hard" for right in log.tiers[0].correct], dtype=object)
    coded = coded_log(replace(log, contexts=labels), ("easy", "hard"))
    lattice = Lattice(contextual_table(Counts(), coded, kappa=0.0))
    for plan in trace_frontier(lattice).plans:
        for stage in plan.stages:
            easy = lattice.row(stage.depths, stage.states) == 1
            assert not (stage.climb[easy] == 1).any()
            assert (stage.answer[easy & (stage.climb < 0)] == 0).all()


def test_every_estimator_plugs_in() -> None:
    coded = coded_log(random_log(150, 6, contexts=2, varying=True), ("c0", "c1"))
    table = contextual_table(Copula(), coded)
    own, pooled = Copula().table(coded.take(coded.context == 0)), Copula().table(coded)
    np.testing.assert_allclose(table.mass[1], (75 * own.mass[0] + 100 * pooled.mass[0]) / 175, atol=EXACT)
    assert table.mass.sum(axis=tuple(range(1, table.mass.ndim))) == pytest.approx(np.ones(3), abs=EXACT)


# Offsets ------------------------------------------------------------------------------------------------------------


def offset_world(rows: int, offsets: Sequence[float], seed: int) -> tuple[CodedLog, np.ndarray]:
    """Rows in a known world: logit quality of the only tier given its reading r is 3 r - 1.5 + the context's offset;
    and what the quality would be without the offset."""
    rng = np.random.default_rng(seed)
    reading = rng.integers(0, 5, rows) / 4
    context = rng.integers(0, len(offsets), rows)
    plain = 3.0 * reading - 1.5
    right = (rng.random(rows) < expit(plain + np.asarray(offsets)[context])).astype(float)
    tier = LoggedTier("only", right, np.ones(rows), (LoggedReading("conf", reading, np.zeros(rows)),))
    ids = np.array([f"q{row:06d}" for row in range(rows)], dtype=object)
    labels = np.array([f"c{c}" for c in context], dtype=object)
    log = ReplayLog(ids, (tier,), rng.integers(1, 4, rows) / 2.0, ids, labels)
    return code_log(log, ladders_of(log, 5), tuple(f"c{c}" for c in range(len(offsets)))), expit(plain)


def penalised(offset: float, right: np.ndarray, before: np.ndarray, weights: np.ndarray) -> float:
    """Minus the log-likelihood of a context's rows, and the ridge, written out."""
    p = expit(logit(before) + offset)
    return float(-(weights * (right * np.log(p) + (1 - right) * np.log(1 - p))).sum() + offset**2 / (2 * SPREAD**2))


@pytest.mark.parametrize("seed", range(5))
def test_offsets_are_where_another_optimiser_finds_the_penalised_likelihood_greatest(seed: int) -> None:
    coded, given = offset_world(400, (-2.0, 0.0, 0.7, 4.0), seed)
    found = quality_offsets(coded, 0, given)
    assert coded.quality[0] is not None
    for c, offset in enumerate(found):
        own = coded.context == c
        args = (coded.quality[0][own], given[own], coded.weights[own])
        best = minimize_scalar(penalised, (-1.0, 1.0), args=args, method="brent", tol=1e-12)
        slope = (penalised(offset + 1e-4, *args) - penalised(offset - 1e-4, *args)) / 2e-4
        assert offset == pytest.approx(best.x, abs=1e-6)
        assert slope == pytest.approx(0.0, abs=1e-5)


def test_with_many_rows_the_true_offsets_are_found() -> None:
    true = (-1.0, -0.25, 0.0, 0.8)
    coded, given = offset_world(80_000, true, 1)
    assert quality_offsets(coded, 0, given) == pytest.approx(true, abs=0.06)  # four standard errors


def test_a_context_without_rows_has_no_offset_and_the_pooled_table() -> None:
    coded = coded_log(random_log(90, 3, contexts=2), ("c0", "c1", "new"))
    table = contextual_table(Copula(), coded, pooling="offsets")
    np.testing.assert_allclose(table.mass[3], table.mass[0], atol=EXACT)
    for worth in table.quality:
        np.testing.assert_allclose(worth[3], worth[0], atol=EXACT)
        assert (np.abs(worth[1] - worth[0]) > 1e-4).any()


def test_queries_of_no_known_context_are_nobodys_evidence() -> None:
    coded, given = offset_world(300, (1.0, -1.0), 2)
    unknown = replace(coded, context=np.where(coded.context == 1, -1, coded.context))
    assert quality_offsets(unknown, 0, given).tolist() == [quality_offsets(coded, 0, given)[0], 0.0]


@pytest.mark.parametrize("right", [0.0, 1.0])
@pytest.mark.parametrize("weight", [1.0, 1e9])
def test_what_a_sure_table_never_expected_has_a_finite_offset(right: float, weight: float) -> None:
    coded, _ = offset_world(50, (0.0,), 4)
    odd = replace(coded, quality=(np.full(50, right),), weights=np.full(50, weight))
    offset = float(quality_offsets(odd, 0, np.full(50, 1.0 - right))[0])
    args = (odd.quality[0], np.full(50, abs(1.0 - right - 1e-9)), odd.weights)
    nearby = [penalised(offset + by, *args) for by in (-1e-3, 0.0, 1e-3)]
    assert math.copysign(1.0, offset) == 2 * right - 1
    assert 0.0 < abs(offset) < 50.0
    assert nearby[1] == min(nearby)


@pytest.mark.parametrize("model", [Counts(), Copula()])
@pytest.mark.parametrize("scored", [False, True])
def test_qualities_lie_between_nothing_and_the_mass_and_move_by_one_number(model: TableModel, scored: bool) -> None:
    coded = coded_log(random_log(200, 5, contexts=3, weighted=True, scored=scored), ("c0", "c1", "c2"))
    moved, averaged = (contextual_table(model, coded, pooling=pooling) for pooling in ("offsets", "average"))
    np.testing.assert_array_equal(moved.mass, averaged.mass)
    for s in range(3):
        worth = moved.quality[s]
        assert (worth >= 0.0).all()
        assert (worth <= moved.mass * (1 + EXACT)).all()
        np.testing.assert_array_equal(worth[0], averaged.quality[s][0])
        open_cells = (worth[0] > 1e-9) & (worth[0] < moved.mass[0] * (1 - 1e-9))
        chance = worth[:, open_cells] / moved.mass[:, open_cells]
        shift = logit(chance[1:]) - logit(chance[0])
        np.testing.assert_allclose(shift, np.broadcast_to(shift[:, :1], shift.shape), atol=1e-6)


def test_the_order_of_rows_does_not_move_an_offset() -> None:
    coded, given = offset_world(500, (0.5, -0.5), 6)
    order = np.random.default_rng(0).permutation(500)
    assert quality_offsets(coded.take(order), 0, given[order]) == pytest.approx(
        quality_offsets(coded, 0, given), abs=2e-9
    )


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pooling is 'offset'; give one of average, offsets"):
        TableLearner(pooling="offset")
