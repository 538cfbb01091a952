"""The cascade as a partially observable Markov decision process.

A hidden state z is drawn once per query and never changes.  What was climbed is seen by everybody; what a rung shows
depends on z.  So a state is a pair (progress, z), an action moves the progress alone, and nothing is discounted: every
query ends after at most one more action than there are rungs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.ladders import Ladder
from metaverify.fitting.lattice import Depths, LatticeSizeError, deeper, legal_climbs, reachable_depths
from metaverify.fitting.observation import ObservationModel
from metaverify.policies.actions import Abstain, Accept, Action

__all__ = ["CascadePOMDP", "Environment", "Information", "cascade_pomdp"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST = 30_000_000
"""Numbers in the largest array of a model."""


@dataclass(frozen=True, slots=True)
class Information:
    """What is known of a query: the rungs climbed of each ladder, and what each of them showed."""

    depths: Depths
    outcomes: tuple[int, ...] = ()  # ladder after ladder, bottom first


@dataclass(frozen=True, slots=True, eq=False)
class CascadePOMDP:
    """Expected quality - price x expected cost of one query, as a POMDP.  `cascade_pomdp` makes it.

    Z hidden states, A actions, P tuples of depths and, at position P, the end; O observations: the outcome of the
    rung that was climbed, or 0 where nothing is to be seen.
    An action that cannot be done ends the query at the reward ``forbidden``, which is below what any policy earns.
    """

    ladders: tuple[Ladder, ...]
    price: float  # quality per unit cost
    abstain: float | None  # the worth of handing a query over; None where that is not to be had
    prior: Floats  # [Z]
    actions: tuple[Action, ...]  # a climb for every rung, ladder after ladder; then the stops
    climbs: tuple[int, ...]  # a climb: its source
    progress: tuple[Depths, ...]  # [P], by total depth
    successor: Ints  # [A, P + 1], the progress that follows
    emission: Floats  # [A, Z, O], P(observation | z) after the action
    gain: Floats  # [A, Z], the reward of the action where it can be done
    possible: NDArray[np.bool_]  # [A, P + 1]
    forbidden: float
    number: dict[Action, int] = field(repr=False)  # the position of each action

    @property
    def root(self) -> Information:
        """What is known before anything is bought."""
        return Information(self.progress[0])

    @property
    def horizon(self) -> int:
        """The most actions that a query takes."""
        return 1 + sum(self.progress[-1])

    def legal(self, depths: Depths) -> tuple[Action, ...]:
        """What can be done there."""
        column = self.possible[:, self.progress.index(depths)]
        return tuple(action for action, can in zip(self.actions, column, strict=True) if can)

    def check(self, information: Information, action: Action) -> int:
        """The position of an action.

        Raises:
            ValueError: it is not one of those that can be done now.
        """
        legal = self.legal(information.depths)
        if action not in legal:
            ways = ", ".join(map(str, legal))
            raise ValueError(f"{action} cannot be done at {information.depths}; what can be is {ways}")
        return self.number[action]

    def advance(self, information: Information, action: Action, outcome: int) -> Information:
        """What is known once a rung was climbed and has shown ``outcome``."""
        source = self.climbs[self.number[action]]
        depths = deeper(information.depths, source)
        place = sum(depths[: source + 1]) - 1
        seen = information.outcomes
        return Information(depths, (*seen[:place], outcome, *seen[place:]))

    def update(self, belief: Floats, action: Action, outcome: int) -> Floats:
        """Bayes' rule: the belief [Z] once ``action`` has shown ``outcome``.

        An outcome that the belief holds impossible teaches nothing, so that one decides in ignorance of it.
        """
        emission = self.emission[self.number[action]]
        if outcome >= emission.shape[1]:
            return belief
        joint = belief * emission[:, outcome]
        total = float(joint.sum())
        return joint / total if total > 0 else belief

    def belief(self, information: Information) -> Floats:
        """P(z | what is known), [Z]: the order in which rungs were climbed does not matter."""
        belief, outcomes, action = self.prior, iter(information.outcomes), 0
        for ladder, depth in zip(self.ladders, information.depths, strict=True):
            for rung in range(depth):
                belief = self.update(belief, self.actions[action + rung], next(outcomes))
            action += len(ladder.rungs)
        return belief

    # As tables over single states: progress x Z + z, and one state more for the end.

    @property
    def size(self) -> tuple[int, int, int]:
        """How many states, actions and observations the tables have."""
        actions, hidden, observations = self.emission.shape
        return len(self.progress) * hidden + 1, actions, observations

    def start(self) -> Floats:
        """The first belief, [S]."""
        start = np.zeros(self.size[0])
        start[: len(self.prior)] = self.prior
        return start

    def transition(self) -> Ints:
        """The one state that follows, [A, S]."""
        hidden, end = len(self.prior), self.size[0] - 1
        after = self.successor[:, :, None] * hidden + np.arange(hidden)
        return np.asarray(np.minimum(after.reshape(len(self.actions), -1)[:, : end + 1], end))

    def observation(self) -> Floats:
        """P(observation | the state that follows, the action), [A, S, O]."""
        return self.emission[:, np.arange(self.size[0]) % len(self.prior)]

    def reward(self, discount: float = 1.0) -> Floats:
        """The reward of an action in a state, [A, S].

        For a solver that must discount, rewards are divided by ``discount`` ** (rungs climbed so far): what it then
        maximises is the undiscounted sum.
        """
        scale = np.array([discount ** -sum(depths) for depths in self.progress])
        gained = np.where(self.possible[:, :-1, None], self.gain[:, None, :], self.forbidden) * scale[:, None]
        return np.concatenate([gained.reshape(len(self.actions), -1), np.zeros((len(self.actions), 1))], axis=1)


def cascade_pomdp(model: ObservationModel, price: float, *, abstain: float | None = None) -> CascadePOMDP:
    """The POMDP of an observation model at a price of cost; of a table's row by way of `observation_model`.

    Raises:
        LatticeSizeError: too many hidden states.
        ValueError: a reading is a sample.
    """
    for source, rung in model.later:
        ladder = model.ladders[source]
        raise ValueError(
            f"reading {ladder.rungs[rung].reading!r} of {ladder.source!r} is a sample, which changes the answer, and a "
            "POMDP's answers do not change; leave it out of --samples"
        )
    ladders, hidden = model.ladders, len(model.prior)
    places = [(source, depth) for source, ladder in enumerate(ladders) for depth in range(len(ladder.rungs))]
    answers = [source for source, quality in enumerate(model.quality) if quality is not None]
    stops: list[Action] = [Accept(ladders[source].source) for source in answers]
    stops += [] if abstain is None else [Abstain()]
    actions = (*(ladders[source].action(depth) for source, depth in places), *stops)
    shown = [int(np.flatnonzero(emission.any(axis=0))[-1]) for emission in model.emission]
    observations = 1 + max(shown, default=0)
    if (numbers := len(actions) * hidden * observations) > MOST:
        raise LatticeSizeError(
            f"{hidden:,} hidden states, {len(actions)} actions and {observations} observations make {numbers:,} "
            f"numbers where {MOST:,} are allowed; a hidden state is what all readings can show together, so name fewer "
            "tiers (--tiers) or fewer bins (--bins)"
        )
    prices = [np.broadcast_to(np.float64(model.price[s][d]), hidden) for s, d in places]
    emission = np.zeros((len(actions), hidden, observations))
    for at, table in enumerate(model.emission):
        kept = table[:, :observations]
        emission[at, :, : kept.shape[1]] = kept
    emission[len(places) :, :, 0] = 1.0
    worth = [q for q in model.quality if q is not None]
    worth += [] if abstain is None else [np.full(hidden, abstain)]
    progress = tuple(reversed(reachable_depths(ladders)))
    successor = np.full((len(actions), len(progress) + 1), len(progress))
    possible = np.zeros(successor.shape, dtype=bool)
    for p, depths in enumerate(progress):
        for source in legal_climbs(ladders, depths):
            at = places.index((source, depths[source]))
            successor[at, p], possible[at, p] = progress.index(deeper(depths, source)), True
        for at, stop in enumerate(stops, start=len(places)):
            possible[at, p] = not isinstance(stop, Accept) or depths[answers[at - len(places)]] > 0
    return CascadePOMDP(
        ladders,
        price,
        abstain,
        model.prior,
        actions,
        tuple(source for source, _ in places),
        progress,
        successor,
        emission,
        np.array([*(-price * p for p in prices), *worth]),
        possible,
        -1.0 - price * sum(float(p.max()) for p in prices),
        {action: at for at, action in enumerate(actions)},
    )


class Environment:
    """Queries drawn from a model, one after another: ``reset``, then ``step`` until it says that it is done."""

    def __init__(self, model: CascadePOMDP) -> None:
        self.model = model
        self.information = model.root
        self.hidden = -1
        self._rng: np.random.Generator | None = None

    def reset(self, rng: np.random.Generator) -> Information:
        """Draw the hidden state of the next query, and be asked what to do about it."""
        self._rng = rng
        self.hidden = int(rng.choice(len(self.model.prior), p=self.model.prior))
        self.information = self.model.root
        return self.information

    def step(self, action: Action) -> tuple[int, float, bool]:
        """What the action shows, what it earns, and whether the query is over.

        Raises:
            ValueError: the action cannot be done now, or the query is over; nothing happens.
        """
        if self._rng is None:
            raise ValueError("no query is open; call reset(rng) first")
        at = self.model.check(self.information, action)
        reward = float(self.model.gain[at, self.hidden])
        if at >= len(self.model.climbs):
            self._rng = None
            return 0, reward, True
        outcome = int(self._rng.choice(self.model.emission.shape[2], p=self.model.emission[at, self.hidden]))
        self.information = self.model.advance(self.information, action, outcome)
        return outcome, reward, False
