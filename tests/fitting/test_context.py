"""A table for each context, shrunk towards the pooled one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.coding import CodedLog, code_log, ladders_of
from metaverify.fitting.context import FEWEST, contextual_table
from metaverify.fitting.frontier import trace_frontier
from metaverify.fitting.lattice import Lattice
from metaverify.fitting.models.copula import Copula
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.table import JointTable
from metaverify.simulators.log import ReplayLog
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
