"""The cascade in the terms of pomdp-py, and two of its planners: PO-UCT, and value iteration over policy trees.

This is the one module that needs pomdp-py.
"""

from __future__ import annotations

import random
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.cuts import CutChain, tune_cuts
from metaverify.fitting.lattice import LatticeSizeError
from metaverify.fitting.pomdp import CascadePOMDP, Information
from metaverify.policies.actions import Action

try:
    import pomdp_py
except ImportError as error:
    raise ImportError(
        "pomdp-py is not installed; its wheels are for Linux on x86_64 and Python below 3.13. "
        "Where they fit, `pip install pomdp-py`; the exact solver needs none of it"
    ) from error

__all__ = ["PouctPlanner", "ValueIterationPlanner", "agent_of", "environment_of", "problem_of"]

Floats = NDArray[np.float64]

MOST_STEPS = 4e7
"""Steps of the inner loop of value iteration: some 20 seconds, at half a microsecond each."""

EXPLORATION = 0.05
"""The exploration constant of PO-UCT, as a share of the range of rewards."""

VISITS = 100
"""Simulations that an action's value under the chain of cuts counts for."""

Preferences = list[tuple[Any, int, float]]
"""Actions with the visits and the value that a search begins with."""


class _Named:
    """What is told apart by a number, and written as a letter and that number."""

    letter: str
    number: int

    def __str__(self) -> str:
        return f"{self.letter}{self.number}"

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.number == self.number


class CascadeState(_Named, pomdp_py.State):  # type: ignore[misc]
    """A row of the model's tables: progress x Z + z, or the end."""

    letter = "s"

    def __init__(self, number: int) -> None:
        self.number = number


class CascadeAction(_Named, pomdp_py.Action):  # type: ignore[misc]
    """An action, by its position among the model's."""

    letter = "a"

    def __init__(self, number: int, action: Action) -> None:
        self.number = number
        self.action = action


class CascadeObservation(_Named, pomdp_py.Observation):  # type: ignore[misc]
    """An outcome."""

    letter = "o"

    def __init__(self, number: int) -> None:
        self.number = number


class CascadeTransitions(pomdp_py.TransitionModel):  # type: ignore[misc]
    """Every action leads to one state."""

    def __init__(self, model: CascadePOMDP) -> None:
        self._states = [CascadeState(number) for number in range(model.size[0])]
        self._next = model.transition().tolist()

    def probability(self, next_state: Any, state: Any, action: Any) -> float:
        """1 for the state that follows, 0 for all others."""
        return float(self._next[action.number][state.number] == next_state.number)

    def sample(self, state: Any, action: Any) -> Any:
        """The state that follows."""
        return self._states[self._next[action.number][state.number]]

    def get_all_states(self) -> list[Any]:
        """In the order of the model's tables."""
        return self._states


class CascadeObservations(pomdp_py.ObservationModel):  # type: ignore[misc]
    """What the rung that was climbed shows."""

    def __init__(self, model: CascadePOMDP, rng: random.Random) -> None:
        self._observations = [CascadeObservation(number) for number in range(model.size[2])]
        self._chance = model.observation().tolist()
        self._rng = rng

    def probability(self, observation: Any, next_state: Any, action: Any) -> float:
        """P(observation | next_state, action)."""
        return float(self._chance[action.number][next_state.number][observation.number])

    def sample(self, next_state: Any, action: Any) -> Any:
        """A draw from it."""
        return self._rng.choices(self._observations, self._chance[action.number][next_state.number])[0]

    def get_all_observations(self) -> list[Any]:
        """In order: planners number them by their place."""
        return self._observations


class CascadeRewards(pomdp_py.RewardModel):  # type: ignore[misc]
    """Quality - price x cost."""

    def __init__(self, model: CascadePOMDP) -> None:
        self._reward = model.reward().tolist()

    def sample(self, state: Any, action: Any, next_state: Any) -> float:
        """The reward, which is certain."""
        return float(self._reward[action.number][state.number])


class CascadePolicyModel(pomdp_py.RolloutPolicy):  # type: ignore[misc]
    """What can be done, and what is done in simulations: the chain of cuts, the best on the model where not given.

    ``information`` is what is known where the history begins.
    """

    def __init__(
        self, model: CascadePOMDP, information: Information | None = None, chain: CutChain | None = None
    ) -> None:
        self._model = model
        self._information = model.root if information is None else information
        self._chain = chain
        self._actions = [CascadeAction(number, action) for number, action in enumerate(model.actions)]
        self._legal = [
            [self._actions[a] for a in np.flatnonzero(column)] or self._actions[:1] for column in model.possible.T
        ]

    def get_all_actions(self, state: Any = None, history: Any = None) -> list[Any]:
        """All actions; those that can be done, where a state is given."""
        return self._actions if state is None else self._legal[state.number // len(self._model.prior)]

    def rollout(self, state: Any, history: Any = None) -> Any:
        """The action of the chain after this history of (action, observation)."""
        if self._chain is None:
            self._chain = tune_cuts(self._model)
        return self.named(self._chain(self.after(history or ())))

    def after(self, history: Any) -> Information:
        """What is known after this history of (action, observation)."""
        information = self._information
        for action, observation in history:
            information = self._model.advance(information, action.action, observation.number)
        return information

    def named(self, action: Action) -> Any:
        """An action as pomdp-py knows it."""
        return self._actions[self._model.number[action]]


class _Belief(pomdp_py.GenerativeDistribution):  # type: ignore[misc]
    """Hidden states drawn at one progress."""

    def __init__(self, model: CascadePOMDP, information: Information, rng: random.Random) -> None:
        belief = model.belief(information)
        first = model.progress.index(information.depths) * len(belief)
        support = np.flatnonzero(belief)
        self._states = [CascadeState(first + z) for z in support.tolist()]
        self._edges = np.cumsum(belief[support])
        self._rng = rng

    def random(self) -> Any:
        """A state drawn from the belief."""
        at = int(self._edges.searchsorted(self._rng.random() * self._edges[-1], side="right"))
        return self._states[min(at, len(self._states) - 1)]


class _Simulator(pomdp_py.BlackboxModel):  # type: ignore[misc]
    """The model as one draw; an action that ends the query takes all the steps that are left."""

    def __init__(self, model: CascadePOMDP, edges: Floats, rng: random.Random) -> None:
        self._hidden = len(model.prior)
        self._next = model.successor.tolist()
        self._gain = model.gain
        self._edges = edges  # [A, Z, O], the emissions summed up
        self._observations = [CascadeObservation(number) for number in range(model.size[2])]
        self._all = model.horizon + 1
        self._end = len(model.progress)
        self._rng = rng

    def sample(self, state: Any, action: Any) -> tuple[Any, Any, float, int]:
        """(next state, observation, reward, steps) of an action that can be done."""
        progress, z = divmod(state.number, self._hidden)
        after = self._next[action.number][progress]
        reward = float(self._gain[action.number, z])
        if after == self._end:
            return state, self._observations[0], reward, self._all
        edges = self._edges[action.number, z]
        outcome = int(edges.searchsorted(self._rng.random() * edges[-1], side="right"))
        return CascadeState(after * self._hidden + z), self._observations[outcome], reward, 1


class _Prior(pomdp_py.ActionPrior):  # type: ignore[misc]
    """Each action's value where the chain goes on after it, counted as some visits; ``values`` keeps what was found."""

    def __init__(self, policy: CascadePolicyModel, chain: CutChain, values: dict[Information, Preferences]) -> None:
        self._policy, self._chain, self._values = policy, chain, values

    def get_preferred_actions(self, state: Any, history: Any) -> Preferences:
        """(action, visits, value) for all that can be done."""
        information = self._policy.after(history)
        if information not in self._values:
            found = self._chain.action_values(information)
            self._values[information] = [(self._policy.named(action), VISITS, found[action]) for action in found]
        return self._values[information]


def agent_of(model: CascadePOMDP, *, seed: int = 0) -> Any:
    """A ``pomdp_py.Agent`` with explicit models, for planners that enumerate; draws are keyed by ``seed``."""
    transitions = CascadeTransitions(model)
    start = dict(zip(transitions.get_all_states(), model.start().tolist(), strict=True))
    return pomdp_py.Agent(
        pomdp_py.Histogram(start),
        CascadePolicyModel(model),
        transitions,
        CascadeObservations(model, random.Random(f"observations {seed}")),
        CascadeRewards(model),
    )


def environment_of(model: CascadePOMDP, hidden: int) -> Any:
    """A ``pomdp_py.Environment`` with one query in it, whose hidden state is ``hidden``."""
    return pomdp_py.Environment(CascadeState(hidden), CascadeTransitions(model), CascadeRewards(model))


def problem_of(model: CascadePOMDP, *, seed: int = 0) -> Any:
    """A ``pomdp_py.POMDP``: the agent, and a query drawn from the prior."""
    hidden = random.Random(f"query {seed}").choices(range(len(model.prior)), model.prior.tolist())[0]
    return pomdp_py.POMDP(agent_of(model, seed=seed), environment_of(model, hidden), name="cascade")


class PouctPlanner:
    """PO-UCT (Silver & Veness 2010) from the exact belief, anew in every information state.

    The search begins, at each node of its tree, with what every action earns if the chain of cuts goes on after it,
    and simulations end with the chain; with actions at random it would be poor.

    Args:
        model: the cascade at a price.
        simulations: how many are run for one decision.
        seed: of the draws, which depend on the information state too and on nothing else.
        chain: the chain of cuts; the best on the model where not given.
    """

    def __init__(
        self, model: CascadePOMDP, *, simulations: int = 1000, seed: int = 0, chain: CutChain | None = None
    ) -> None:
        if simulations < 1:
            raise ValueError(f"simulations is {simulations}; give at least 1")
        self._model, self._simulations, self._seed = model, simulations, seed
        self._chain = tune_cuts(model) if chain is None else chain
        self._edges = model.emission.cumsum(axis=2)
        self._values: dict[Information, Preferences] = {}

    def __call__(self, information: Information) -> Action:
        """The action whose simulations earned most."""
        rng = random.Random(f"{self._seed} {information}")
        policy = CascadePolicyModel(self._model, information, self._chain)
        search = pomdp_py.POUCT(
            max_depth=self._model.horizon,
            num_sims=self._simulations,
            discount_factor=1.0,
            exploration_const=EXPLORATION * float(self._model.gain.max() - self._model.gain.min()),
            rollout_policy=policy,
            action_prior=_Prior(policy, self._chain, self._values),
        )
        belief, simulator = _Belief(self._model, information, rng), _Simulator(self._model, self._edges, rng)
        action: Action = search.plan(pomdp_py.Agent(belief, policy, blackbox_model=simulator)).action
        return action


class ValueIterationPlanner:
    """Value iteration over policy trees (Kaelbling, Littman & Cassandra 1998, section 4.1): exact, for toys.

    No tree is pruned, so with A actions and O observations there are A, A·A^O, A·(A·A^O)^O, … of them.

    Args:
        model: the cascade at a price.
        most: steps that it may take.

    Raises:
        LatticeSizeError: the trees would take more steps than that.
    """

    def __init__(self, model: CascadePOMDP, *, most: float = MOST_STEPS) -> None:
        states, actions, observations = model.size
        trees = 1
        for _ in range(model.horizon):
            trees = actions * min(trees, 10**9) ** observations
        if (steps := float(trees) * states**2 * observations) > most:
            raise LatticeSizeError(
                f"{actions} actions, {observations} observations and {model.horizon} steps make {trees:.0e} policy "
                f"trees over {states} states, {steps:.1e} steps where {most:.1e} are allowed; value iteration is for "
                "toys: two tiers (--tiers) of which one has a reading, of 2 bins (--bins), no context and nothing to "
                "hand over to; or take another solver (--solver lattice is as exact, at any size that fits)"
            )
        self._model = model
        agent = agent_of(model)
        search = pomdp_py.ValueIteration(horizon=model.horizon, discount_factor=1.0)
        found = search._build_policy_trees(1, agent)  # the one way to the trees, and so to their values
        self._actions: list[Action] = [tree.action.action for tree in found]
        self._values = np.array([[tree.values[state] for state in agent.all_states] for tree in found])

    def through(self, other: ValueIterationPlanner, model: CascadePOMDP) -> ValueIterationPlanner:
        """The planner of the same cascade at a third price, without building its trees: what a tree earns is linear in
        the price, so the values at two of them tell it at any."""
        share = (model.price - self._model.price) / (other._model.price - self._model.price)
        planner = copy(self)
        planner._model, planner._values = model, self._values + share * (other._values - self._values)
        return planner

    @property
    def value(self) -> float:
        """What the best tree earns, net of price x cost."""
        return float((self._values @ self._model.start()).max())

    def __call__(self, information: Information) -> Action:
        """The first action of the tree that is best for the belief."""
        belief = self._model.belief(information)
        first = self._model.progress.index(information.depths) * len(belief)
        return self._actions[int((self._values[:, first : first + len(belief)] @ belief).argmax())]
