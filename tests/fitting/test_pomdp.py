"""The cascade as a POMDP: what it is worth, what is believed, and what its simulation does."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given

from metaverify.fitting.ladders import Ladder, Rung
from metaverify.fitting.lattice import Lattice, LatticeSizeError
from metaverify.fitting.observation import observation_model
from metaverify.fitting.pomdp import CascadePOMDP, Environment, Information, cascade_pomdp
from metaverify.fitting.table import JointTable
from metaverify.policies.actions import Abstain, Accept, Call, Verify
from tests.fitting.oracles import best_value
from tests.fitting.test_observation import LADDERS, random_mixture
from tests.strategies import prices, random_table, repeatable, tables, worths_of_abstaining

EXACT = 1e-9


def tree_value(model: CascadePOMDP, discount: float = 1.0) -> float:
    """The value by recursion over beliefs on flat tables alone, which know nothing of cascades."""
    after, shown, reward = model.transition(), model.observation(), model.reward(discount)
    end = len(reward[0]) - 1

    def best(joint: np.ndarray, steps: int) -> float:  # [S], not normalised
        if steps == 0 or not joint[:end].any():
            return 0.0
        options = []
        for a in range(len(reward)):
            value = float(joint @ reward[a])
            moved = np.bincount(after[a], weights=joint, minlength=end + 1)
            if moved[:end].any():
                value += discount * sum(best(moved * shown[a][:, o], steps - 1) for o in range(shown.shape[2]))
            options.append(value)
        return max(options)

    return best(model.start(), model.horizon)


@given(tables(most_leaves=27, most_rungs=4), prices, worths_of_abstaining)
@repeatable(40)
def test_a_row_of_a_table_is_worth_as_much_as_the_lattice_says(
    table: JointTable, price: float, abstain: float | None
) -> None:
    first = JointTable(
        table.ladders,
        table.mass[:1],
        tuple(None if q is None else q[:1] for q in table.quality),
        tuple(tuple(p if isinstance(p, float) else p[:1] for p in rungs) for rungs in table.price),
    )
    plan = Lattice(first, abstain=abstain).solve(price)
    model = cascade_pomdp(observation_model(table), price, abstain=abstain)
    expected = plan.quality - price * plan.cost
    assert best_value(first, price, abstain) == pytest.approx(expected, abs=EXACT)
    assert tree_value(model) == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize("discount", [0.5, 0.95, 1.0])
def test_a_mixture_is_worth_as_much_at_any_discount(discount: float) -> None:
    mixture = random_mixture(LADDERS, 3, 0)
    plan = Lattice(mixture.table(), abstain=0.3).solve(0.2)
    model = cascade_pomdp(mixture, 0.2, abstain=0.3)
    assert model.horizon == 5
    assert tree_value(model, discount) == pytest.approx(plan.quality - 0.2 * plan.cost, abs=EXACT)


def test_its_tables_are_distributions_and_the_end_absorbs() -> None:
    model = cascade_pomdp(random_mixture(LADDERS, 3, 1), 0.5, abstain=0.1)
    states, actions, observations = model.size
    assert model.actions == (
        *(Call("a"), Verify("a", "paid"), Verify("judge", "verdict"), Call("b")),
        *(Accept("a"), Accept("b"), Abstain()),
    )
    assert (actions, observations) == (7, 4)
    assert states == 3 * len(model.progress) + 1
    assert model.observation().sum(axis=2) == pytest.approx(np.ones((actions, states)))
    assert (model.transition()[:, -1] == states - 1).all()
    assert not model.reward()[:, -1].any()
    assert model.start().sum() == pytest.approx(1.0)
    for action, row in zip(model.actions, model.transition(), strict=True):
        for state, after in enumerate(row[:-1]):
            depths = model.progress[state // 3]
            climbs = action in model.legal(depths) and not isinstance(action, Accept | Abstain)
            assert climbs == (after != states - 1)
            if climbs:
                assert after % 3 == state % 3
                assert sum(model.progress[after // 3]) == sum(depths) + 1


def test_outcomes_that_nothing_shows_are_no_observations() -> None:
    table = random_table((Ladder("a", (Rung("free", (0.5,)),)), Ladder("b", (Rung(None),))), 0)
    table.mass[:, 2] = 0.0
    assert cascade_pomdp(observation_model(table), 0.1).size[2] == 2


# What is believed ---------------------------------------------------------------------------------------------------


def test_beliefs_are_bayes_rule_whatever_the_order() -> None:
    mixture = random_mixture(LADDERS, 4, 2)
    model = cascade_pomdp(mixture, 0.1)
    climbed = [(Call("a"), 0, 1), (Verify("a", "paid"), 1, 2), (Verify("judge", "verdict"), 2, 0)]
    weights = [float(mixture.prior[z]) for z in range(4)]
    for _, rung, outcome in climbed:
        weights = [w * float(mixture.emission[rung][z, outcome]) for z, w in enumerate(weights)]
    expected = np.array(weights) / sum(weights)
    for order in (climbed, [climbed[0], climbed[2], climbed[1]]):
        information, belief = model.root, mixture.prior
        for action, _, outcome in order:
            belief = model.update(belief, action, outcome)
            information = model.advance(information, action, outcome)
        assert information == Information((2, 1, 0), (1, 2, 0))
        assert belief == pytest.approx(expected, abs=1e-15)
        assert model.belief(information) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("seed", range(2))
def test_beliefs_expect_what_the_lattice_expects(seed: int) -> None:
    mixture = random_mixture(LADDERS, 5, seed)
    model, lattice = cascade_pomdp(mixture, 0.1), Lattice(mixture.table())
    for depths in model.progress:
        sizes = [size for ladder, depth in zip(LADDERS, depths, strict=True) for size in ladder.sizes[:depth]]
        for state, outcomes in enumerate(itertools.product(*(range(size) for size in sizes))):
            belief = model.belief(Information(depths, outcomes))
            at = np.array([state])
            for source in (0, 2):
                expected = lattice.quality(source, depths, at)[0] / lattice.mass(depths, at)[0]
                assert belief @ mixture.quality[source] == pytest.approx(expected, abs=1e-12)


def test_an_impossible_outcome_teaches_nothing() -> None:
    table = random_table((Ladder("a", (Rung("free", (0.5,)),)), Ladder("b", (Rung(None),))), 0)
    table.mass[:, 2] = 0.0
    model = cascade_pomdp(observation_model(table), 0.1)
    assert (model.update(model.prior, Call("a"), 2) == model.prior).all()
    certain = np.eye(len(model.prior))[0]
    shown = int(model.emission[0, 0].argmax())
    assert (model.update(certain, Call("a"), 1 - shown) == certain).all()


# What its simulation does -------------------------------------------------------------------------------------------


def test_simulated_queries_come_as_often_and_earn_as_much_as_the_table_says() -> None:
    mixture = random_mixture((LADDERS[0], LADDERS[2]), 3, 3)
    table, count = mixture.table(), 20_000
    environment, rng = Environment(cascade_pomdp(mixture, 0.5)), np.random.default_rng(0)
    seen: Counter[tuple[int, ...]] = Counter()
    earned = []
    for _ in range(count):
        environment.reset(rng)
        steps = [environment.step(a) for a in (Call("a"), Verify("a", "paid"), Call("b"), Accept("b"))]
        assert [done for *_, done in steps] == [False, False, False, True]
        seen[tuple(outcome for outcome, *_ in steps[:3])] += 1
        earned.append(sum(reward for _, reward, _ in steps))
    for cell in np.ndindex(*table.mass.shape[1:]):
        chance = float(table.mass[0, *cell])
        assert abs(seen[cell] / count - chance) < 4 * np.sqrt(chance * (1 - chance) / count)
    spent = sum(p if isinstance(p, float) else float(p.sum()) for s in (0, 1) for p in table.price[s])
    expected = float(table.quality[1].sum()) - 0.5 * spent
    assert abs(np.mean(earned) - expected) < 4 * np.std(earned) / np.sqrt(count)


def test_what_cannot_be_done_is_refused_and_nothing_happens() -> None:
    environment = Environment(cascade_pomdp(random_mixture(LADDERS, 3, 0), 0.1))
    with pytest.raises(ValueError, match="reset"):
        environment.step(Call("a"))
    start = environment.reset(np.random.default_rng(0))
    for action in (Accept("a"), Verify("a", "paid"), Verify("judge", "verdict"), Abstain(), Call("c")):
        with pytest.raises(ValueError, match=r"cannot be done at \(0, 0, 0\); what can be is Call"):
            environment.step(action)
    assert environment.information == start
    environment.step(Call("a"))
    environment.step(Accept("a"))
    with pytest.raises(ValueError, match="reset"):
        environment.step(Accept("a"))


def test_a_model_that_would_not_fit_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaverify.fitting.pomdp.MOST", 70)
    with pytest.raises(LatticeSizeError, match=r"3 hidden states, 6 actions and 4 observations .*--bins"):
        cascade_pomdp(random_mixture(LADDERS, 3, 0), 0.1)
