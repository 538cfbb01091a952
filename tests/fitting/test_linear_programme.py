"""The lattice and its frontier against a linear programme over information states, solved by HiGHS."""

from __future__ import annotations

import numpy as np
import pytest

from metaverify.fitting.frontier import complete_near, trace_frontier
from metaverify.fitting.ladders import Ladder, Rung
from metaverify.fitting.lattice import Lattice
from metaverify.fitting.table import JointTable
from tests.fitting.oracles import best_curve, best_value, programme
from tests.strategies import random_table

CLOSE = 1e-9
NO_CUT, ONE_CUT, TWO_CUTS = Rung("free", ()), Rung("free", (0.5,)), Rung("free", (0.3, 0.7))
CASCADES: dict[str, tuple[Ladder, ...]] = {
    "two tiers": (Ladder("a", (TWO_CUTS, Rung("paid", (0.5,)))), Ladder("b", (Rung(None), Rung("paid", (0.5,))))),
    "three tiers": (Ladder("a", (TWO_CUTS,)), Ladder("b", (Rung(None), Rung("paid", (0.5,)))), Ladder("c", (ONE_CUT,))),
    "four tiers": (
        Ladder("a", (ONE_CUT,)),
        Ladder("b", (ONE_CUT,)),
        Ladder("c", (NO_CUT,)),
        Ladder("d", (Rung(None),)),
    ),
    "two tiers, a judge and a signal": (
        Ladder("signal", (Rung("length", (0.5,)),), answer=False),
        Ladder("a", (ONE_CUT,)),
        Ladder("judge", (Rung("verdict", (0.5,)),), answer=False, needs=("a",)),
        Ladder("b", (Rung(None),)),
    ),
}


@pytest.fixture(params=CASCADES)
def cascade(request: pytest.FixtureRequest) -> tuple[Ladder, ...]:
    return CASCADES[request.param]


def cases(cascade: tuple[Ladder, ...]) -> list[tuple[JointTable, float | None]]:
    return [
        (random_table(cascade, 11), None),
        (random_table(cascade, 12, contexts=1, varying=True), None),
        (random_table(cascade, 13, varying=True, empty=0.3, grid=2), 0.4),
    ]


def test_the_optimum_at_a_price_is_the_programmes(cascade: tuple[Ladder, ...]) -> None:
    for table, abstain in cases(cascade):
        lattice, lp = Lattice(table, abstain=abstain), programme(table, abstain)
        for price in (0.0, 0.1, 0.5, 3.0):
            plan = lattice.solve(price)
            assert plan.quality - price * plan.cost == pytest.approx(lp.best_value(price), abs=CLOSE)


def test_the_mixture_at_a_budget_is_the_constrained_programmes_optimum(cascade: tuple[Ladder, ...]) -> None:
    for table, abstain in cases(cascade):
        lattice, lp = Lattice(table, abstain=abstain), programme(table, abstain)
        rough = trace_frontier(lattice, gap=0.05)
        for share in np.linspace(0.02, 1.1, 7):
            budget = rough.costs[0] + float(share) * (rough.costs[-1] - rough.costs[0])
            found = complete_near(lattice, rough, budget).quality(budget)
            assert found == pytest.approx(lp.best_quality(budget), abs=CLOSE)


def test_the_oracles_agree_with_each_other(cascade: tuple[Ladder, ...]) -> None:
    table, abstain = cases(cascade)[0]
    lp, curve = programme(table, abstain), best_curve(table, abstain)
    for price in (0.05, 0.7):
        assert lp.best_value(price) == pytest.approx(best_value(table, price, abstain), abs=CLOSE)
        assert max(q - price * c for c, q in curve) == pytest.approx(best_value(table, price, abstain), abs=CLOSE)
    budget = 0.6 * curve[0][0] + 0.4 * curve[-1][0]
    expected = np.interp(budget, [cost for cost, _ in curve], [quality for _, quality in curve])
    assert lp.best_quality(budget) == pytest.approx(expected, abs=CLOSE)
