"""The lattice against another project's POMDP solvers: exact ones on toys, and search by simulation.

What a cascade is worth, what is believed after a reading and what a file says are worked out by pomdp-py's own code.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from metaverify.fitting.cuts import tune_cuts
from metaverify.fitting.ladders import Ladder, Rung
from metaverify.fitting.lattice import Lattice, LatticeSizeError
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.observation import ObservationModel, observation_model
from metaverify.fitting.planner import Planner, plan_of
from metaverify.fitting.pomdp import CascadePOMDP, cascade_pomdp
from metaverify.policies.actions import Accept, Call
from tests.fitting.test_observation import LADDERS, random_mixture
from tests.strategies import random_log

pomdp_py = pytest.importorskip("pomdp_py", reason="pomdp-py has wheels for Linux on x86_64 and Python < 3.13 only")
bridge = pytest.importorskip("metaverify.fitting.pomdp_py_bridge")

CLOSE = 1e-9
SEEN = Rung("free")  # two outcomes: there, and missing
TOYS: dict[str, tuple[tuple[Ladder, ...], float | None]] = {
    "a tier and a person": ((Ladder("small", (SEEN,)),), 0.5),
    "a reading to buy, and a person": ((Ladder("small", (Rung(None), SEEN)),), 0.5),
    "two tiers, the dear one unread": ((Ladder("small", (SEEN,)), Ladder("large", (Rung(None),))), None),
    "a signal before the call": ((Ladder("signal", (SEEN,), answer=False), Ladder("small", (Rung(None),))), 0.5),
}


def toy(name: str, seed: int, hidden: int = 3) -> tuple[CascadePOMDP, float, Lattice]:
    """A cascade of `TOYS` at a price, what it is worth, and its lattice."""
    ladders, abstain = TOYS[name]
    mixture = random_mixture(ladders, hidden, seed)
    lattice = Lattice(mixture.table(), abstain=abstain)
    plan = lattice.solve(0.15)
    return cascade_pomdp(mixture, 0.15, abstain=abstain), plan.quality - 0.15 * plan.cost, lattice


@pytest.mark.parametrize("name", TOYS)
def test_the_best_policy_tree_is_worth_what_the_lattice_says(name: str) -> None:
    model, expected, lattice = toy(name, 0, 2)
    planner = bridge.ValueIterationPlanner(model)
    assert planner.value == pytest.approx(expected, abs=CLOSE)
    plan = plan_of(lattice, [planner], 0.15)
    assert plan.quality - 0.15 * plan.cost == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize("name", TOYS)
def test_recursion_over_beliefs_agrees(name: str) -> None:
    model, expected, _ = toy(name, 2)
    agent = bridge.agent_of(model)
    states, observations = list(agent.all_states), list(agent.all_observations)
    belief = {state: agent.belief[state] for state in states}
    models = (agent.transition_model, agent.observation_model, agent.reward_model)
    value = pomdp_py.value(belief, states, agent.all_actions, observations, *models, 1.0, horizon=model.horizon)
    assert value == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize("name", TOYS)
def test_the_trees_at_two_prices_tell_what_they_are_worth_at_any_other(name: str) -> None:
    ladders, abstain = TOYS[name]
    mixture = random_mixture(ladders, 2, 1)
    free, priced, model = (cascade_pomdp(mixture, price, abstain=abstain) for price in (0.0, 1.0, 0.15))
    low, high = bridge.ValueIterationPlanner(free), bridge.ValueIterationPlanner(priced)
    plan = Lattice(mixture.table(), abstain=abstain).solve(0.15)
    assert low.through(high, model).value == pytest.approx(plan.quality - 0.15 * plan.cost, abs=CLOSE)


def test_value_iteration_is_for_toys() -> None:
    model = cascade_pomdp(random_mixture(LADDERS, 3, 0), 0.1)
    with pytest.raises(LatticeSizeError, match=r"6 actions, 4 observations and 5 steps make .* policy trees .*--tiers"):
        bridge.ValueIterationPlanner(model)


# The same model in pomdp-py's terms ---------------------------------------------------------------------------------


def test_its_belief_after_a_reading_is_ours() -> None:
    model = cascade_pomdp(random_mixture(LADDERS, 3, 0), 0.1)
    agent = bridge.agent_of(model)
    belief = {state: agent.belief[state] for state in agent.all_states}
    information = model.root
    for number, outcome in ((0, 1), (2, 0), (1, 3), (3, 0)):
        action, observation = agent.all_actions[number], agent.all_observations[outcome]
        belief = pomdp_py.belief_update(belief, action, observation, agent.transition_model, agent.observation_model)
        information = model.advance(information, action.action, outcome)
        first = model.progress.index(information.depths) * 3
        expected = np.zeros(model.size[0])
        expected[first : first + 3] = model.belief(information)
        assert [belief[state] for state in agent.all_states] == pytest.approx(expected, abs=1e-12)


def test_the_file_that_it_writes_has_our_tables(tmp_path: Path) -> None:
    model = cascade_pomdp(random_mixture(TOYS["a reading to buy, and a person"][0], 3, 0), 0.1, abstain=0.3)
    path = tmp_path / "theirs.pomdp"
    pomdp_py.to_pomdp_file(bridge.agent_of(model), str(path), discount_factor=1.0, float_precision=15)
    states, actions, observations = model.size
    found = {
        "T": np.zeros((actions, states, states)),
        "O": np.zeros((actions, states, observations)),
        "R": np.zeros((actions, states, states)),
    }
    entry = re.compile(r"([TOR]) : a(\d+) : s(\d+) : [so](\d+) (?:: \* )? ?(\S+)")
    for kind, *place, value in (line.groups() for line in map(entry.fullmatch, path.read_text().splitlines()) if line):
        found[kind][tuple(map(int, place))] = float(value)
    assert found["T"] == pytest.approx(np.eye(states)[model.transition()], abs=1e-14)
    assert found["O"] == pytest.approx(model.observation(), abs=1e-14)
    assert found["R"] == pytest.approx(np.repeat(model.reward()[:, :, None], states, axis=2), abs=1e-14)


def test_its_problem_runs_query_after_query_as_often_as_the_table_says() -> None:
    model = cascade_pomdp(random_mixture((LADDERS[0],), 3, 1), 0.5)
    table = random_mixture((LADDERS[0],), 3, 1).table()
    seen: Counter[int] = Counter()
    for seed in range(3000):
        problem = bridge.problem_of(model, seed=seed)
        call = problem.agent.all_actions[model.number[Call("a")]]
        hidden = problem.env.state.number
        assert problem.env.state_transition(call) == pytest.approx(model.gain[0, hidden], rel=1e-6)
        seen[problem.env.provide_observation(problem.agent.observation_model, call).number] += 1
        accept = problem.agent.all_actions[model.number[Accept("a")]]
        assert problem.env.state_transition(accept) == pytest.approx(model.gain[2, hidden], rel=1e-6)
        assert problem.env.state.number == model.size[0] - 1
    for outcome, chance in enumerate(table.mass[0].sum(axis=1)):
        assert abs(seen[outcome] / 3000 - chance) < 4 * np.sqrt(chance * (1 - chance) / 3000)


def test_simulations_do_what_the_chain_does() -> None:
    model = cascade_pomdp(random_mixture(LADDERS, 4, 0), 0.05)
    chain, policy = tune_cuts(model), bridge.CascadePolicyModel(model)
    agent = bridge.agent_of(model)
    history: tuple = ()
    information = model.root
    for number, outcome in ((3, 0), (0, 2)):
        assert policy.rollout(agent.all_states[0], history).action == chain(information)
        action = agent.all_actions[number]
        history += ((action, agent.all_observations[outcome]),)
        information = model.advance(information, action.action, outcome)
    state = agent.all_states[model.progress.index(information.depths) * 4]
    assert tuple(a.action for a in policy.get_all_actions(state)) == model.legal(information.depths)
    assert len(policy.get_all_actions()) == len(model.actions)


# Search by simulation -----------------------------------------------------------------------------------------------


def worth(lattice: Lattice, planner: Planner, price: float) -> float:
    plan = plan_of(lattice, [planner], price)
    return plan.quality - price * plan.cost


def three_tiers(seed: int, bins: int) -> tuple[ObservationModel, Lattice]:
    lattice = TableLearner(bins=bins).study(random_log(1000, seed, readings=("free",) * 3, missing=0.0)).lattice
    return observation_model(lattice.table), lattice


def within_two_per_cent(seed: int, bins: int, price: float, simulations: int) -> None:
    model, lattice = three_tiers(seed, bins)
    best = lattice.solve(price)
    cascade = cascade_pomdp(model, price)
    found = worth(lattice, bridge.PouctPlanner(cascade, simulations=simulations), price)
    exact = best.quality - price * best.cost
    assert 0.98 * exact <= found <= exact + CLOSE


@pytest.mark.parametrize("price", [0.01, 0.05])
def test_search_is_within_two_per_cent_of_the_optimum(price: float) -> None:
    within_two_per_cent(0, 3, price, 300)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("price", [0.01, 0.03, 0.05, 0.1])
def test_search_is_within_two_per_cent_of_the_optimum_at_eight_bins(seed: int, price: float) -> None:
    within_two_per_cent(seed, 8, price, 1000)


def test_search_depends_on_its_seed_and_on_the_information_alone() -> None:
    model, _ = three_tiers(1, 3)
    cascade = cascade_pomdp(model, 0.03)
    states = [cascade.root]
    for outcome in range(3):
        states.append(cascade.advance(cascade.root, Call("tier0"), outcome))
        states.append(cascade.advance(states[-1], Call("tier1"), 1))
    few = [bridge.PouctPlanner(cascade, simulations=30, seed=seed) for seed in (0, 0, 1)]
    there = [few[0](information) for information in states]
    back = [few[1](information) for information in reversed(states)]
    assert there == back[::-1]
    with pytest.raises(ValueError, match="simulations is 0"):
        bridge.PouctPlanner(cascade, simulations=0)


def test_a_table_with_empty_cells_is_searched_too() -> None:
    log = random_log(60, 3, readings=("free", "free"))
    lattice = TableLearner(Counts(), bins=4).study(log).lattice
    model = cascade_pomdp(observation_model(TableLearner(Counts(), bins=4).study(log).table), 0.05)
    best = lattice.solve(0.05)
    assert worth(lattice, bridge.PouctPlanner(model, simulations=200), 0.05) >= 0.98 * (best.quality - 0.05 * best.cost)
