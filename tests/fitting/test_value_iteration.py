"""The lattice against another project's POMDP solvers, on toys small enough for them.

The toys are written down as POMDPs, from hidden states; the joint table is derived from the same hidden states.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from metaverify.fitting.ladders import Ladder, Rung
from metaverify.fitting.lattice import Lattice
from metaverify.fitting.table import JointTable

pomdp_py = pytest.importorskip("pomdp_py", reason="pomdp-py has wheels for Linux on x86_64 and Python < 3.13 only")

CLOSE = 1e-9
FORBIDDEN = -100.0  # the reward of what cannot be done
PAIRS = list(itertools.product((0, 1), repeat=2))  # which of the two tiers is right
END = "end"
Hidden = tuple[int, int]


class Toy:
    """Hidden states with a prior, and the chance of a high reading given the hidden state."""

    def __init__(self, seed: int, readings: int) -> None:
        rng = np.random.default_rng(seed)
        self.prior = dict(zip(PAIRS, rng.dirichlet(np.ones(4)), strict=True))
        self.high = {(pair, r): float(rng.random()) for pair in PAIRS for r in range(readings)}

    def table(self, ladders: tuple[Ladder, ...], prices: tuple[tuple[float, ...], ...]) -> JointTable:
        """The joint of the readings, a rung after another; no reading is ever missing."""
        shape = (1, *(size for ladder in ladders for size in ladder.sizes))
        mass, quality = np.zeros(shape), [np.zeros(shape) for _ in ladders]
        read = [rung.reading is not None for ladder in ladders for rung in ladder.rungs]
        for pair, cell in itertools.product(PAIRS, itertools.product((0, 1), repeat=sum(read))):
            chance = self.prior[pair]
            for reading, level in enumerate(cell):
                chance *= self.high[pair, reading] if level else 1 - self.high[pair, reading]
            levels = iter(cell)
            at = (0, *(next(levels) if r else 0 for r in read))
            mass[at] += chance
            for s in range(len(ladders)):
                quality[s][at] += chance * pair[s]
        return JointTable(ladders, mass, tuple(quality), prices)


def agent(
    toy: Toy,
    phases: int,
    actions: tuple[str, ...],
    step: Callable[[Hidden, int, str], tuple[int | None, float]],
    reading: Callable[[int, str], int | None],
) -> Any:
    """A pomdp-py agent.

    Args:
        step: (hidden, phase, action) -> the next phase, None at the end, and the reward.
        reading: (phase reached, action) -> the reading that is then seen, None where nothing is.
    """
    names = [END, *((pair, phase) for pair in PAIRS for phase in range(phases))]
    states = {name: pomdp_py.SimpleState(name) for name in names}
    acts = [pomdp_py.SimpleAction(name) for name in actions]
    seen = [pomdp_py.SimpleObservation(name) for name in ("low", "high")]
    transition, observation, reward = {}, {}, {}
    for name, act in itertools.product(names, acts):
        target, gained = END, 0.0
        if name != END:
            phase, gained = step(*name, act.name)
            target = END if phase is None else (name[0], phase)
        for other in names:
            transition[states[name], act, states[other]] = float(other == target)
        reward[states[name], act] = gained
        read = None if name == END else reading(name[1], act.name)
        high = 0.5 if read is None else toy.high[name[0], read]
        for observed, chance in zip(seen, (1 - high, high), strict=True):
            observation[states[name], act, observed] = chance

    class Observations(pomdp_py.TabularObservationModel):  # the planner wants them in an order
        def get_all_observations(self) -> list[Any]:
            return seen

    belief = {states[name]: toy.prior[name[0]] if name != END and name[1] == 0 else 0.0 for name in names}
    return pomdp_py.Agent(
        pomdp_py.Histogram(belief),
        pomdp_py.UniformPolicyModel(acts),
        pomdp_py.TabularTransitionModel(transition),
        Observations(observation),
        pomdp_py.TabularRewardModel(reward),
    )


def tree_value(of: Any, horizon: int) -> float:
    """The value of the best policy tree.  Only discount 1 is right, and only the tree builder tells values."""
    trees = pomdp_py.ValueIteration(horizon=horizon, discount_factor=1.0)._build_policy_trees(1, of)
    states = list(of.all_states)
    return max(sum(of.belief[s] * tree.values[s] for s in states) for tree in trees)


def belief_value(of: Any, horizon: int) -> float:
    """The value by recursion over beliefs."""
    states, observations = list(of.all_states), list(of.all_observations)
    return float(
        pomdp_py.value(
            {s: of.belief[s] for s in states},
            states,
            list(of.all_actions),
            observations,
            of.transition_model,
            of.observation_model,
            of.reward_model,
            1.0,
            horizon=horizon,
        )
    )


def lattice_value(table: JointTable, price: float) -> float:
    plan = Lattice(table).solve(price)
    return plan.quality - price * plan.cost


@pytest.mark.parametrize(("seed", "price"), [(0, 0.1), (1, 0.2)])
def test_the_best_policy_tree_is_worth_what_the_lattice_says(seed: int, price: float) -> None:
    """A small tier with a reading that comes with the call and another to buy, and a large tier that is not read."""
    first, second, large = 0.5, 0.2, 1.5
    toy = Toy(seed, readings=2)

    def step(hidden: Hidden, phase: int, action: str) -> tuple[int | None, float]:
        match action:
            case "look" if phase < 2:
                return phase + 1, -price * (first, second)[phase]
            case "accept" if phase > 0:
                return None, float(hidden[0])
            case "large":
                return None, hidden[1] - price * large
        return None, FORBIDDEN

    def reading(phase: int, action: str) -> int | None:
        return phase - 1 if action == "look" and phase > 0 else None

    ladders = (Ladder("small", (Rung("free", (0.5,)), Rung("paid", (0.5,)))), Ladder("large", (Rung(None),)))
    expected = lattice_value(toy.table(ladders, ((first, second), (large,))), price)
    problem = agent(toy, 3, ("look", "accept", "large"), step, reading)
    assert tree_value(problem, 3) == pytest.approx(expected, abs=CLOSE)
    assert belief_value(problem, 3) == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize(("seed", "price"), [(2, 0.05), (3, 0.2), (4, 0.6)])
def test_two_tiers_that_are_both_read_are_worth_what_recursion_over_beliefs_says(seed: int, price: float) -> None:
    """Either tier may be called first, and either answer be accepted once both are in hand."""
    costs = (0.4, 1.0)
    toy = Toy(seed, readings=2)

    def step(hidden: Hidden, phase: int, action: str) -> tuple[int | None, float]:
        verb, tier = action.split()
        k = int(tier)
        if verb == "call" and not phase & (1 << k):
            return phase | (1 << k), -price * costs[k]
        if verb == "accept" and phase & (1 << k):
            return None, float(hidden[k])
        return None, FORBIDDEN

    def reading(phase: int, action: str) -> int | None:
        verb, tier = action.split()
        return int(tier) if verb == "call" and phase & (1 << int(tier)) else None

    ladders = tuple(Ladder(name, (Rung("free", (0.5,)),)) for name in ("small", "large"))
    expected = lattice_value(toy.table(ladders, ((costs[0],), (costs[1],))), price)
    problem = agent(toy, 4, ("call 0", "call 1", "accept 0", "accept 1"), step, reading)
    assert belief_value(problem, 3) == pytest.approx(expected, abs=CLOSE)
