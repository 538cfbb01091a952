"""Planners asked over the lattice, and chains of cuts among them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given

from metaverify.fitting.cuts import CutChain, tune_cuts
from metaverify.fitting.export import policy_of
from metaverify.fitting.frontier import Frontier
from metaverify.fitting.ladders import Ladder, Rung
from metaverify.fitting.lattice import ABSTAIN, Lattice, Plan
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.observation import observation_model
from metaverify.fitting.planner import Planner, plan_of
from metaverify.fitting.pomdp import CascadePOMDP, Information, cascade_pomdp
from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.simulators.replay import route
from tests.fitting.oracles import follow
from tests.fitting.test_observation import LADDERS, random_mixture
from tests.strategies import prices, random_log, repeatable, tables, worths_of_abstaining

THREE = (
    Ladder("a", (Rung("free", (0.5,)),)),
    Ladder("b", (Rung(None), Rung("paid", (0.3, 0.7)))),
    Ladder("c", (Rung("free", (0.5,)),)),
)


def remembered(lattice: Lattice, plan: Plan, row: int) -> Planner:
    """A planner that looks up, action by action, what a plan does where every rung shows what was seen."""
    ladders, rows = lattice.table.ladders, len(lattice.share)

    def act(information: Information) -> Action:
        places = [(s, j) for s, depth in enumerate(information.depths) for j in range(depth)]
        outcome = {(s, j): 0 for s, ladder in enumerate(ladders) for j in range(len(ladder.rungs))}
        outcome |= dict(zip(places, information.outcomes, strict=True))
        return follow(ladders, rows, plan, row, outcome)[len(places)]

    return act


@given(tables(most_leaves=54), prices, worths_of_abstaining)
@repeatable(40)
def test_a_planner_that_decides_as_a_plan_becomes_that_plan(table, price: float, abstain: float | None) -> None:
    lattice = Lattice(table, abstain=abstain)
    exact = lattice.solve(price)
    again = plan_of(lattice, [remembered(lattice, exact, row) for row in range(len(table.share))], price)
    assert again.cost == pytest.approx(exact.cost, abs=1e-12)
    assert again.quality == pytest.approx(exact.quality, abs=1e-12)
    assert {stage.depths for stage in again.stages} == {stage.depths for stage in exact.stages}
    assert [sum(stage.depths) for stage in again.stages] == sorted(sum(stage.depths) for stage in again.stages)


def test_its_policy_replays_at_the_cost_and_quality_of_the_plan() -> None:
    log = random_log(300, 0, contexts=2)
    lattice = TableLearner(Counts(), bins=3, kappa=0.0).study(log).lattice
    models = [cascade_pomdp(observation_model(lattice.table, row), 0.05) for row in range(len(lattice.share))]
    plan = plan_of(lattice, [tune_cuts(model) for model in models], 0.05)
    policy = policy_of(lattice, Frontier((plan,)), log)
    routes = route(policy, log, 0)
    assert log.mean(routes.cost) == pytest.approx(plan.cost, rel=1e-9)
    assert log.mean(routes.quality) == pytest.approx(plan.quality, abs=1e-9)


@pytest.mark.parametrize(
    "action",
    [Accept("a"), Verify("a", "paid"), Verify("judge", "verdict"), Call("nobody"), Accept("judge"), Abstain()],
)
def test_a_planner_that_asks_for_what_cannot_be_done_is_refused(action: Action) -> None:
    lattice = Lattice(random_mixture(LADDERS, 3, 0).table())
    with pytest.raises(ValueError, match=r"asks for .* at Information\(depths=\(0, 0, 0\)"):
        plan_of(lattice, [lambda information: action], 0.1)


# Chains of cuts -----------------------------------------------------------------------------------------------------


def worth(model: CascadePOMDP, planner: Planner, information: Information) -> float:
    """What a planner earns from here on, by recursion over what may be shown."""
    belief, action = model.belief(information), planner(information)
    at = model.check(information, action)
    value = float(belief @ model.gain[at])
    if at >= len(model.climbs):
        return value
    for outcome in range(model.size[2]):
        chance = float(belief @ model.emission[at][:, outcome])
        if chance > 0:
            value += chance * worth(model, planner, model.advance(information, action, outcome))
    return value


def chains(model: CascadePOMDP) -> list[CutChain]:
    """Every chain over the sources of `THREE`, each one before those that are dearer."""
    order = sorted(range(3), key=lambda s: -float(model.prior @ model.gain[model.climbs.index(s)]))
    bins, found = (2, 3, 2), []
    for last in (ABSTAIN, *order) if model.abstain is not None else order:
        before = order if last == ABSTAIN else order[: order.index(last)]
        for cuts in itertools.product(*([None, *range(bins[s])] for s in before)):
            chosen = tuple((s, cut) for s, cut in zip(before, cuts, strict=True) if cut is not None)
            found.append(CutChain(model, chosen, last))
    return found


@pytest.mark.parametrize("abstain", [None, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_a_chain_is_worth_what_it_earns_and_the_tuned_one_most(seed: int, abstain: float | None) -> None:
    model = cascade_pomdp(random_mixture(THREE, 5, seed), 0.15, abstain=abstain)
    states = np.arange(5)
    values = [chain.value(model.root, model.prior, states) for chain in chains(model)]
    assert values == pytest.approx([worth(model, chain, model.root) for chain in chains(model)], abs=1e-12)
    tuned = tune_cuts(model)
    assert tuned.value(model.root, model.prior, states) == pytest.approx(max(values), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_a_chain_goes_on_from_anywhere(seed: int) -> None:
    model = cascade_pomdp(random_mixture(THREE, 5, seed), 0.15, abstain=0.4)
    rng = np.random.default_rng(seed)
    found = chains(model)
    for depths in model.progress:
        sizes = [size for ladder, depth in zip(THREE, depths, strict=True) for size in ladder.sizes[:depth]]
        information = Information(depths, tuple(int(rng.integers(size)) for size in sizes))
        belief = model.belief(information)
        for chain in (found[k] for k in rng.integers(len(found), size=20)):
            value = chain.value(information, belief, np.arange(5))
            assert value == pytest.approx(worth(model, chain, information), abs=1e-12)


def test_action_values_are_those_of_the_chain_or_a_stop_after_the_action() -> None:
    model = cascade_pomdp(random_mixture(THREE, 5, 0), 0.1, abstain=0.2)
    chain = tune_cuts(model)

    def stop_or_chain(information: Information, first: Action) -> Planner:
        def act(later: Information) -> Action:
            if later == information:
                return first
            return decided.setdefault(later, decide(later))

        def decide(later: Information) -> Action:
            belief = model.belief(later)
            stops = [a for a in model.legal(later.depths) if isinstance(a, Accept | Abstain)]
            earned = {a: float(belief @ model.gain[model.number[a]]) for a in stops}
            best = max(earned, key=lambda a: earned[a])
            return best if earned[best] > worth(model, chain, later) else chain(later)

        decided: dict[Information, Action] = {}
        return act

    for information in (model.root, Information((1, 0, 0), (1,)), Information((1, 1, 0), (0, 0))):
        values = chain.action_values(information)
        assert set(values) == set(model.legal(information.depths))
        for action, value in values.items():
            later = worth(model, stop_or_chain(information, action), information)
            assert value <= later + 1e-12  # it may stop once more on the way
            assert (
                value
                >= worth(model, lambda i, a=action, at=information: a if i == at else chain(i), information) - 1e-12
            )
        assert values[chain(information)] >= worth(model, chain, information) - 1e-12
