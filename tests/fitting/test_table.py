"""Joint tables: what makes one, averages of them, and what is done where nothing was seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metaverify.fitting.coding import code_log, ladders_of
from metaverify.fitting.frontier import trace_frontier
from metaverify.fitting.ladders import Ladder, Rung
from metaverify.fitting.lattice import Lattice
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.table import UNSEEN, JointTable, average, back_off
from tests.fitting.oracles import best_value
from tests.strategies import random_log, random_table

EXACT = 1e-12
CASCADE = (
    Ladder("a", (Rung("free", (0.5,)), Rung("paid", (0.5,)))),
    Ladder("b", (Rung("free", (0.3, 0.7)),)),
    Ladder("judge", (Rung("verdict", (0.5,)),), answer=False, needs=("a",)),
)


def test_arrays_of_another_shape_are_refused() -> None:
    table = random_table(CASCADE, 0)
    for wrong in (
        {"mass": table.mass[..., 0]},
        {"quality": (table.quality[0][..., :1], *table.quality[1:])},
        {"price": ((table.mass[0], 0.0), (1.0,), (1.0,))},
        {"contexts": ("c",), "share": (0.5, 0.5)},
    ):
        with pytest.raises(ValueError, match=r"has shape \(\d, 3, 3, 4, 3\), not"):
            replace(table, **wrong)


@pytest.mark.parametrize("share", [(0.5, 0.4), (1.0,), (0.2, 0.3, 0.5)])
def test_shares_that_are_not_one_a_row_or_do_not_sum_to_1_are_refused(share: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="share needs 2 entries that sum to 1"):
        replace(random_table(CASCADE, 0, contexts=1), share=share)


# Averages -----------------------------------------------------------------------------------------------------------


def test_an_average_is_the_weighted_mean_of_every_entry() -> None:
    tables = [random_table(CASCADE, seed, varying=True) for seed in range(3)]
    mean = average(tables, [1.0, 2.0, 5.0])

    def expected(arrays: list[np.ndarray]) -> np.ndarray:
        return (arrays[0] + 2 * arrays[1] + 5 * arrays[2]) / 8

    def price(table: JointTable, s: int, j: int) -> np.ndarray:
        return table.price[s][j] * (1 if isinstance(table.price[s][j], np.ndarray) else table.mass)

    np.testing.assert_allclose(mean.mass, expected([t.mass for t in tables]), atol=EXACT)
    for s, ladder in enumerate(CASCADE):
        if ladder.answer:
            np.testing.assert_allclose(mean.quality[s], expected([t.quality[s] for t in tables]), atol=EXACT)
        for j in range(len(ladder.rungs)):
            np.testing.assert_allclose(price(mean, s, j), expected([price(t, s, j) for t in tables]), atol=EXACT)
    assert mean.quality[2] is None


def test_an_average_of_equal_constant_prices_is_that_price_and_of_others_a_table() -> None:
    first, second = random_table(CASCADE, 0), random_table(CASCADE, 1)
    same = replace(second, price=first.price)
    assert average([first, same], [1, 3]).price == first.price
    other = replace(second, price=((9.0, 9.0), first.price[1], first.price[2]))
    mixed = average([first, other], [1, 3]).price
    assert isinstance(mixed[0][0], np.ndarray)
    assert mixed[1] == first.price[1]
    assert mixed[0][0].sum() == pytest.approx((first.price[0][0] + 27.0) / 4)


def test_an_average_of_a_table_with_itself_is_that_table() -> None:
    table = random_table(CASCADE, 2, varying=True)
    mean = average([table, table], [0.3, 0.7])
    np.testing.assert_allclose(mean.mass, table.mass, rtol=EXACT)
    assert best_value(mean, 0.2) == pytest.approx(best_value(table, 0.2), abs=EXACT)


def test_a_weight_of_nothing_counts_for_nothing() -> None:
    first, second = random_table(CASCADE, 3, varying=True), random_table(CASCADE, 4, varying=True)
    mean = average([first, second], [7.0, 0.0])
    np.testing.assert_allclose(mean.mass, first.mass, rtol=EXACT)
    assert best_value(mean, 0.2) == pytest.approx(best_value(first, 0.2), abs=EXACT)


# Backing off --------------------------------------------------------------------------------------------------------


def never_missing(seed: int, varying: bool) -> tuple[JointTable, JointTable]:
    """A table in which the free reading of tier a never goes missing, and the same without that reading."""
    table = random_table(CASCADE, seed, varying=varying)
    kept = np.ones(table.mass.shape)
    kept[:, -1] = 0.0
    total = (table.mass * kept).sum()

    def seen(array: np.ndarray) -> np.ndarray:
        return array * kept / total

    prices = tuple(tuple(seen(p) if isinstance(p, np.ndarray) else p for p in rungs) for rungs in table.price)
    table = replace(
        table, mass=seen(table.mass), quality=tuple(q if q is None else seen(q) for q in table.quality), price=prices
    )

    def without(array: np.ndarray) -> np.ndarray:
        return array.sum(axis=1, keepdims=True)

    blind = JointTable(
        (Ladder("a", (Rung(None), CASCADE[0].rungs[1])), *CASCADE[1:]),
        without(table.mass),
        tuple(q if q is None else without(q) for q in table.quality),
        tuple(tuple(without(p) if isinstance(p, np.ndarray) else p for p in rungs) for rungs in prices),
    )
    return table, blind


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_reading_that_never_went_missing_is_decided_without_when_it_does(seed: int, varying: bool) -> None:
    table, blind = (back_off(t) for t in never_missing(seed, varying))
    missing = 2  # the outcome
    for price in (0.02, 0.1, 0.3):
        lattice, reference = Lattice(table), Lattice(blind)
        lattice.solve(price)
        reference.solve(price)
        called = (1, 0, 0)
        state, stand_in = np.array([missing]), np.array([0])
        value = lattice.value(called, state)[0] / lattice.mass(called, state)[0]
        expected = reference.value(called, stand_in)[0] / reference.mass(called, stand_in)[0]
        assert value == pytest.approx(expected, rel=1e-9)
        assert lattice.mass(called, state)[0] == pytest.approx(UNSEEN, rel=1e-9)
        for source in lattice.climbable(called):
            after = tuple(depth + (s == source) for s, depth in enumerate(called))
            worth = lattice.value(after, lattice.children(called, source, state)).sum()
            worth -= price * lattice.charge(called, source, state)[0]
            elsewhere = reference.value(after, reference.children(called, source, stand_in)).sum()
            elsewhere -= price * reference.charge(called, source, stand_in)[0]
            assert worth / UNSEEN == pytest.approx(elsewhere, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_backing_off_changes_no_value_beyond_rounding(seed: int) -> None:
    table = random_table(CASCADE, seed, contexts=1, varying=seed > 1, empty=0.3)
    for price in (0.0, 0.1, 0.5):
        for abstain in (None, 0.4):
            plan = Lattice(back_off(table), abstain=abstain).solve(price)
            assert plan.quality - price * plan.cost == pytest.approx(best_value(table, price, abstain), abs=EXACT)


def test_backing_off_gives_every_outcome_what_is_known_without_it() -> None:
    table = random_table((Ladder("a", (Rung("free", (0.5,)),)),), 0)
    table = replace(table, mass=np.array([[0.25, 0.75, 0.0]]), quality=(np.array([[0.0, 0.75, 0.0]]),))
    soft = back_off(table)
    np.testing.assert_allclose(soft.mass, [[0.25 + UNSEEN, 0.75 + UNSEEN, UNSEEN]], rtol=EXACT)
    np.testing.assert_allclose(soft.quality[0], [[0.75 * UNSEEN, 0.75 * (1 + UNSEEN), 0.75 * UNSEEN]], rtol=EXACT)


def test_rungs_that_read_nothing_are_left_as_they_are() -> None:
    table = random_table((Ladder("a", (Rung(None),)), Ladder("b", (Rung(None),))), 0)
    assert (back_off(table).mass == table.mass).all()


def test_a_log_without_missing_readings_gives_a_policy_that_stands_without_them() -> None:
    """Deciding on a missing reading as on none: the plan's own worth of calling blind."""
    log = random_log(300, 1, readings=("free", ""), missing=0.0)
    table = Counts().table(code_log(log, ladders_of(log, 4)))
    lattice = Lattice(back_off(table))
    missing = np.array([table.mass.shape[1] - 1])
    small, large = log.mean(log.tiers[0].correct), log.mean(log.tiers[1].correct)
    for plan in trace_frontier(lattice).plans:
        lattice.solve(plan.price)
        value = lattice.value((1, 0), missing)[0] / lattice.mass((1, 0), missing)[0]
        assert value == pytest.approx(max(small, large - plan.price * 4.0, small), rel=1e-9)
