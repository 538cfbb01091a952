"""Oracles of the exact solver: the same questions answered slowly, over dictionaries of outcomes, or in another way.

A table is taken apart into leaves, each with a dictionary (source, rung) -> outcome.  Nothing here knows of slabs,
marginals or orders that lead to the same state, but for `follow`, which reads the decisions that a plan stores.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_array

from metaverify.fitting.ladders import Ladder, Rung, vote_rung
from metaverify.fitting.lattice import ABSTAIN, Plan
from metaverify.fitting.table import JointTable
from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.policies.graph import Ask, Graph, Poll, Read, Stop
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.worlds import World, joint

ROUNDING = 1e-13

Place = tuple[int, int]  # a source and one of its steps: a rung, or one of its votes
FAILED = 2  # the outcome of the first vote where it is missing; 0 is no and 1 is yes


@dataclass(frozen=True)
class Leaf:
    """One combination of outcomes in one context row; the expectations carry the row's share of traffic."""

    row: int
    outcome: dict[Place, int]
    mass: float
    quality: dict[Place, float]  # of each answer, by the rung that it comes with
    price: dict[Place, float]


def leaves_of(table: JointTable) -> list[Leaf]:
    """A leaf a cell of the table; where there are votes, one for each order in which they can have come."""
    places = [(s, j) for s, ladder in enumerate(table.ladders) for j in range(len(ladder.rungs))]
    leaves = []
    for cell in np.ndindex(*table.mass.shape):
        share = table.share[cell[0]]
        price = {}
        for s, j in places:
            p = table.price[s][j]
            price[s, j] = share * float(p[cell] if isinstance(p, np.ndarray) else p * table.mass[cell])
        first = {(s, 0): q for s, q in enumerate(table.quality) if q is not None}
        quality = {place: share * float(q[cell]) for place, q in {**first, **table.later}.items()}
        outcome = dict(zip(places, cell[1:], strict=True))
        leaves += voted(table.ladders, Leaf(cell[0], outcome, share * float(table.mass[cell]), quality, price))
    return leaves


def voted(ladders: Sequence[Ladder], leaf: Leaf) -> list[Leaf]:
    """The leaf with each number of yes votes replaced by the votes themselves, in every order, all equally likely."""
    leaves = [leaf]
    for s, ladder in enumerate(ladders):
        if ladder.votes:
            leaves = [
                ordered for before in leaves for ordered in orders(before, (s, len(ladder.rungs) - 1), ladder.votes)
            ]
    return leaves


def orders(leaf: Leaf, place: Place, votes: int) -> list[Leaf]:
    s, first = place
    yes, price = leaf.outcome[place], leaf.price[place] / votes
    steps = [(s, first + vote) for vote in range(votes)]
    found = [(FAILED,) * votes]
    if yes <= votes:
        found = [
            tuple(int(at in chosen) for at in range(votes)) for chosen in itertools.combinations(range(votes), yes)
        ]

    def part(value: float) -> float:
        return value / len(found)

    return [
        Leaf(
            leaf.row,
            leaf.outcome | dict(zip(steps, order, strict=True)),
            part(leaf.mass),
            {place: part(quality) for place, quality in leaf.quality.items()},
            {at: part(paid) for at, paid in (leaf.price | dict.fromkeys(steps, price)).items()},
        )
        for order in found
    ]


def legal(ladders: Sequence[Ladder], depths: Sequence[int], last: int = -1, failed: bool = False) -> list[int]:
    """Sources that can be climbed once ``depths`` steps of each are had.

    Votes that were begun go on only where the ``last`` step was one of them, and where none has failed.
    """
    in_hand = {ladder.source for ladder, depth in zip(ladders, depths, strict=True) if depth and ladder.answer}
    return [
        s
        for s, ladder in enumerate(ladders)
        if depths[s] < ladder.steps
        and (ladder.answer or set(ladder.needs) <= in_hand)
        and (not ladder.asked(depths[s]) or (last == s and not failed))
    ]


def stops(ladders: Sequence[Ladder], leaves: Sequence[Leaf], depths: Sequence[int], abstain: float | None) -> list:
    """What each way of stopping earns on these leaves."""
    worth = [] if abstain is None else [abstain * sum(leaf.mass for leaf in leaves)]
    for s, ladder in enumerate(ladders):
        if ladder.answer and depths[s]:
            worth.append(sum(answered(leaf, s, range(depths[s])) for leaf in leaves))
    return worth


def answered(leaf: Leaf, source: int, climbed: Iterable[int]) -> float:
    """The quality of a source's answer once these rungs were climbed, in this order: that of the last one it got."""
    return [leaf.quality[source, rung] for rung in climbed if (source, rung) in leaf.quality][-1]


def divided(leaves: Sequence[Leaf], place: Place) -> list[list[Leaf]]:
    """The leaves by the outcome of one rung."""
    parts: dict[int, list[Leaf]] = {}
    for leaf in leaves:
        parts.setdefault(leaf.outcome[place], []).append(leaf)
    return list(parts.values())


def has_failed(leaves: Sequence[Leaf], depths: Sequence[int], last: int) -> bool:
    """Whether the vote that was asked for last is missing, in leaves that agree on it."""
    return last >= 0 and leaves[0].outcome[last, depths[last] - 1] == FAILED


def by_row(table: JointTable) -> list[list[Leaf]]:
    leaves = leaves_of(table)
    return [[leaf for leaf in leaves if leaf.row == row] for row in range(len(table.share))]


# Brute force over histories -----------------------------------------------------------------------------------------


def best_value(table: JointTable, price: float, abstain: float | None = None) -> float:
    """The greatest expected quality - price x cost of any decision tree, by recursion over ordered histories."""

    def best(leaves: Sequence[Leaf], depths: tuple[int, ...], last: int = -1) -> float:
        options = stops(table.ladders, leaves, depths, abstain)
        for s in legal(table.ladders, depths, last, has_failed(leaves, depths, last)):
            after = (*depths[:s], depths[s] + 1, *depths[s + 1 :])
            spent = sum(leaf.price[s, depths[s]] for leaf in leaves)
            parts = divided(leaves, (s, depths[s]))
            options.append(sum(best(part, after, s) for part in parts) - price * spent)
        return max(options)

    return sum(best(leaves, (0,) * len(table.ladders)) for leaves in by_row(table))


def best_forward_value(table: JointTable, price: float, abstain: float | None = None) -> float:
    """The same where tiers are gone through in their order, some left out: whoever calls one reads all there is of it,
    and either keeps its answer or calls a later one."""
    ladders = table.ladders

    def best(leaves: Sequence[Leaf], last: int) -> float:
        options = [] if abstain is None else [abstain * sum(leaf.mass for leaf in leaves)]
        if last >= 0:
            options.append(sum(answered(leaf, last, range(len(ladders[last].rungs))) for leaf in leaves))
        for later in range(last + 1, len(ladders)):
            rungs = [(later, rung) for rung in range(len(ladders[later].rungs))]
            spent = sum(leaf.price[place] for leaf in leaves for place in rungs)
            parts: dict[tuple[int, ...], list[Leaf]] = {}
            for leaf in leaves:
                parts.setdefault(tuple(leaf.outcome[place] for place in rungs), []).append(leaf)
            options.append(sum(best(part, later) for part in parts.values()) - price * spent)
        return max(options)

    return sum(best(leaves, -1) for leaves in by_row(table))


Curve = list[tuple[float, float]]  # (cost, quality), rising and concave


def best_curve(table: JointTable, abstain: float | None = None) -> Curve:
    """Every vertex of the concave frontier of all decision trees: hulls of unions and sums of hulls, no prices."""

    def best(leaves: Sequence[Leaf], depths: tuple[int, ...], last: int = -1) -> Curve:
        points = [(0.0, worth) for worth in stops(table.ladders, leaves, depths, abstain)]
        for s in legal(table.ladders, depths, last, has_failed(leaves, depths, last)):
            after = (*depths[:s], depths[s] + 1, *depths[s + 1 :])
            spent = sum(leaf.price[s, depths[s]] for leaf in leaves)
            curve = summed([best(part, after, s) for part in divided(leaves, (s, depths[s]))])
            points += [(cost + spent, quality) for cost, quality in curve]
        return upper_hull(points)

    return summed([best(leaves, (0,) * len(table.ladders)) for leaves in by_row(table)])


def upper_hull(points: Sequence[tuple[float, float]]) -> Curve:
    """The points that are best at some price >= 0, by cost."""
    hull: Curve = []
    for cost, quality in sorted(points, key=lambda p: (p[0], -p[1])):
        if hull and quality <= hull[-1][1] + ROUNDING:
            continue
        while len(hull) > 1:
            (c0, q0), (c1, q1) = hull[-2:]
            if (q1 - q0) * (cost - c1) > (quality - q1) * (c1 - c0):
                break
            hull.pop()
        hull.append((cost, quality))
    return hull


def summed(curves: Sequence[Curve]) -> Curve:
    """The frontier of independent choices: steps of all curves, steepest first."""
    steps = [(b[0] - a[0], b[1] - a[1]) for curve in curves for a, b in itertools.pairwise(curve)]
    curve = [(sum(c[0][0] for c in curves), sum(c[0][1] for c in curves))]
    for run, rise in sorted(steps, key=lambda step: step[0] / step[1]):
        curve.append((curve[-1][0] + run, curve[-1][1] + rise))
    return curve


def curve_at(curve: Curve, budget: float) -> float:
    """The quality of the best mixture of a curve's points that costs at most ``budget``."""
    return float(np.interp(budget, [cost for cost, _ in curve], [quality for _, quality in curve]))


# A linear programme over information states -------------------------------------------------------------------------


@dataclass(frozen=True)
class Programme:
    """Occupancy of (information state, action) pairs: flow in equals flow out, one unit into each row's root."""

    quality: np.ndarray  # [pairs]
    cost: np.ndarray  # [pairs]
    flow: coo_array  # [states, pairs]
    inflow: np.ndarray  # [states]

    def best_value(self, price: float) -> float:
        """The greatest quality - price x cost."""
        return -self._solve(price * self.cost - self.quality).fun

    def best_quality(self, budget: float) -> float:
        """The greatest quality of any randomised policy that costs at most ``budget``."""
        return -self._solve(-self.quality, A_ub=self.cost[None, :], b_ub=[budget]).fun

    def _solve(self, objective: np.ndarray, **bound: object):
        tight = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}
        found = linprog(objective, A_eq=self.flow.tocsr(), b_eq=self.inflow, method="highs-ds", options=tight, **bound)
        assert found.status == 0, found.message
        return found


def programme(table: JointTable, abstain: float | None = None) -> Programme:
    ladders = table.ladders
    members: dict[tuple, list[Leaf]] = {}  # an information state: the row, what was climbed, what came out
    for depths in itertools.product(*(range(len(ladder.rungs) + 1) for ladder in ladders)):
        if not reachable(ladders, depths):
            continue
        places = [(s, j) for s, depth in enumerate(depths) for j in range(depth)]
        for leaf in leaves_of(table):
            members.setdefault((leaf.row, depths, tuple(leaf.outcome[p] for p in places)), []).append(leaf)
    number = {state: at for at, state in enumerate(members)}
    quality, cost, rows, columns, entries = [], [], [], [], []

    def pair(state: int, worth: float, spent: float, children: set[int]) -> None:
        for at, entry in [(state, 1.0), *((child, -1.0) for child in children)]:
            rows.append(at)
            columns.append(len(quality))
            entries.append(entry)
        quality.append(worth)
        cost.append(spent)

    for (row, depths, outcomes), leaves in members.items():
        state = number[row, depths, outcomes]
        for worth in stops(ladders, leaves, depths, abstain):
            pair(state, worth, 0.0, set())
        for s in legal(ladders, depths):
            after = (*depths[:s], depths[s] + 1, *depths[s + 1 :])
            places = [(source, j) for source, depth in enumerate(after) for j in range(depth)]
            children = {number[row, after, tuple(leaf.outcome[p] for p in places)] for leaf in leaves}
            pair(state, 0.0, sum(leaf.price[s, depths[s]] for leaf in leaves), children)
    inflow = np.array([float(not any(depths)) for _, depths, _ in members])
    flow = coo_array((entries, (rows, columns)), shape=(len(members), len(quality)))
    return Programme(np.array(quality), np.array(cost), flow, inflow)


def reachable(ladders: Sequence[Ladder], depths: tuple[int, ...]) -> bool:
    """Whether legal climbing can lead to these depths."""
    had = {ladder.source for ladder, depth in zip(ladders, depths, strict=True) if depth}
    return all(not depth or set(ladder.needs) <= had for ladder, depth in zip(ladders, depths, strict=True))


# Following a plan, and walking a graph ------------------------------------------------------------------------------


def follow(ladders: Sequence[Ladder], rows: int, plan: Plan, row: int, outcome: dict[Place, int]) -> list[Action]:
    """What a plan does where every step would show ``outcome``: purchases in order, then the end."""
    stages = {stage.depths: stage for stage in plan.stages}
    depths, done = (0,) * len(ladders), []
    while True:
        stage = stages[depths]
        known = [seen(ladder, s, depth, outcome) for s, (ladder, depth) in enumerate(zip(ladders, depths, strict=True))]
        shape = (rows, *(size for of in known for _, size in of))
        state = int(np.ravel_multi_index((row, *(at for of in known for at, _ in of)), shape))
        (at,) = np.flatnonzero(stage.states == state)
        source = int(stage.climb[at])
        if source < 0:
            answer = int(stage.answer[at])
            return [*done, Abstain() if answer == ABSTAIN else Accept(ladders[answer].source)]
        steps = 1
        if source in stage.asks:
            place = int(np.flatnonzero(stage.climb == source).tolist().index(at))
            ladder, first = ladders[source], depths[source]
            while steps < ladder.votes:
                ((tally, _),) = seen(ladder, source, first + steps, outcome)[-1:]
                if not stage.asks[source][steps - 1][place, tally]:
                    break
                steps += 1
        done += [bought(ladders[source], depths[source])] * steps
        depths = (*depths[:source], depths[source] + steps, *depths[source + 1 :])


def seen(ladder: Ladder, s: int, depth: int, outcome: dict[Place, int]) -> list[tuple[int, int]]:
    """What the first steps of a ladder show: (outcome, outcomes) of each rung, of votes how many were yes."""
    asked = ladder.asked(depth)
    found = [(outcome[s, j], ladder.rungs[j].size) for j in range(depth - asked)]
    if asked:
        votes = [outcome[s, depth - asked + vote] for vote in range(asked)]
        found.append((asked + 1 if FAILED in votes else sum(votes), asked + 2))
    return found


def bought(ladder: Ladder, depth: int) -> Action:
    """A rung as an action; a reading that comes with the answer is none."""
    if ladder.answer and depth == 0:
        return Call(ladder.source)
    reading = ladder.rung(depth).reading
    assert reading is not None
    return Verify(ladder.source, reading)


def walk_leaf(ladders: Sequence[Ladder], nodes: Graph, root: int, outcome: dict[Place, int]) -> list[Action]:
    """What a graph does where every rung would show ``outcome``, one confidence standing for a bin."""
    places = {
        (ladder.source, rung.reading): (s, j) for s, ladder in enumerate(ladders) for j, rung in enumerate(ladder.rungs)
    }
    at, done = root, []
    while True:
        match nodes[at]:
            case Stop(action):
                return [*done, action]
            case Ask(tier, then):
                done.append(Call(tier))
                at = then
            case Read(tier, reading, cuts, then, missing):
                s, j = places[tier, reading]
                if not (ladders[s].answer and j == 0):
                    done.append(Verify(tier, reading))
                confidence = typical(ladders[s].rungs[j].cuts, outcome[s, j])
                at = missing if confidence is None else then[sum(cut <= confidence for cut in cuts)]
            case Poll(tier, reading, tallies, missing):
                s, j = places[tier, reading]
                yes = 0
                for vote, tally in enumerate(tallies):
                    done.append(Verify(tier, reading))
                    if outcome[s, j + vote] == FAILED:
                        at = missing
                        break
                    yes += outcome[s, j + vote]
                    target = tally.then[sum(cut <= yes for cut in tally.cuts)]
                    if target is not None:
                        at = target
                        break


def typical(cuts: Sequence[float], outcome: int) -> float | None:
    """A confidence in a bin, its lower edge; None for the outcome "missing"."""
    return None if outcome == len(cuts) + 1 else [0.0, *cuts][outcome]


def spent_and_earned(table: JointTable, decisions: dict[int, list[Action]]) -> tuple[float, float]:
    """Expected cost and quality, in exact sums, of doing ``decisions`` [position of a leaf] on every leaf."""
    sources = {ladder.source: s for s, ladder in enumerate(table.ladders)}
    cost = quality = 0.0
    for at, leaf in enumerate(leaves_of(table)):
        asked: dict[int, int] = {}
        climbed: dict[int, list[int]] = {}
        for action in decisions[at]:
            match action:
                case Call(tier):
                    climbed[sources[tier]] = [0]
                    cost += leaf.price[sources[tier], 0]
                case Verify(tier, reading):
                    s = sources[tier]
                    step = [rung.reading for rung in table.ladders[s].rungs].index(reading)
                    if table.ladders[s].rungs[step].votes:
                        step += asked.setdefault(s, 0)
                        asked[s] += 1
                    climbed.setdefault(s, []).append(step)
                    cost += leaf.price[s, step]
                case Accept(tier):
                    quality += answered(leaf, sources[tier], climbed[sources[tier]])
    return cost, quality


# Worlds -------------------------------------------------------------------------------------------------------------


def table_of_world(world: World) -> JointTable:
    """The exact table of a world; a tier's first reading comes with its call where it costs nothing."""
    exact = joint(world)
    ladders, sizes, pads = [], [], []
    for name, emissions in zip(world.tiers, world.readings, strict=True):
        rungs = [
            vote_rung(e.name, e.votes)
            if e.votes
            else Rung(e.name, tuple(float(x) for x in (e.levels[1:] + e.levels[:-1]) / 2))
            for e in emissions
        ]
        if not emissions or emissions[0].price > 0:
            rungs.insert(0, Rung(None))
        ladders.append(Ladder(name, tuple(rungs)))
        sizes += [rung.size if rung.reading is None or world.missing else rung.size - 1 for rung in rungs]
        pads += [int(rung.reading is not None and not world.missing) for rung in rungs]

    def filled(array: np.ndarray) -> np.ndarray:
        return np.pad(array.reshape(sizes), [(0, pad) for pad in pads])[None]

    def call(k: int) -> float | np.ndarray:
        constant = (world.price[:, k] == world.price[0, k]).all()
        return float(world.price[0, k]) if constant else filled(exact.price[k])

    bought = ([e.price for e in emissions if e.price > 0] for emissions in world.readings)
    return JointTable(
        tuple(ladders),
        filled(exact.mass),
        tuple(filled(quality) for quality in exact.quality),
        tuple((call(k), *prices) for k, prices in enumerate(bought)),
    )


# Rows of a log ------------------------------------------------------------------------------------------------------


def walk_row(
    log: ReplayLog, nodes: Graph, root: int, row: int
) -> tuple[float, float, list[tuple[int, int]], str | None]:
    """What a graph spends and earns on one query, the branches (node, branch) it takes, and the tier it accepts."""
    at, cost, branches = root, 0.0, []
    quality: dict[str, float] = {}
    while True:
        match nodes[at]:
            case Stop(Accept(tier)):
                return cost, quality[tier], branches, tier
            case Stop(_):
                return cost, 0.0, branches, None
            case Ask(tier, then):
                cost += float(log.tier(tier).cost[row])
                quality[tier] = float(log.tier(tier).correct[row])
                at = then
            case Read(tier, reading, cuts, then, missing):
                (column,) = (r for r in log.tier(tier).readings if r.name == reading)
                confidence = float(column.confidence[row])
                cost += float(column.price[row])
                if column.correct is not None and not np.isnan(column.correct[row]):
                    quality[tier] = float(column.correct[row])
                branch = sum(cut <= confidence for cut in cuts) if 0.0 <= confidence <= 1.0 else len(then)
                branches.append((at, branch))
                at = (*then, missing)[branch]
