"""Doubly robust estimates against a second implementation: a query at a time, as the papers write them.

Dudík, Erhan, Langford & Li, "Doubly robust policy evaluation and optimization" (2014), eq. 3.1: the model's value, and
where the log shows what the policy does, the inverse propensity times what the model did not expect.  Wang, Agarwal &
Dudík, "Optimal and adaptive off-policy evaluation in contextual bandits" (2017), eq. 9: the same where the weight is at
most a cap, the model alone elsewhere.  Jiang & Li, "Doubly robust off-policy value evaluation" (2016), eq. 10, for
several steps in a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import isnan
from typing import Literal

import numpy as np
import pytest

from metaverify.policies.actions import Accept
from metaverify.policies.exploration import Exploration
from metaverify.policies.graph import Ask, Read, Stop
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.simulators.offpolicy import FOLDS, appraise
from metaverify.simulators.partial import PartialLog, Sighting
from metaverify.simulators.trace import hide_tier, observed_by
from metaverify.simulators.worlds import shared_difficulty, token_prices
from tests.simulators.test_offpolicy import NEW, OLD, chain

Kind = Literal["quality", "cost"]
Draw = Callable[[int, int], PartialLog]


@dataclass
class Stage:
    """One purchase or end on a query's way: was it seen, with which chance up to here, what did it bring."""

    node: int
    seen: bool
    chance: float
    reward: float


@dataclass
class Way:
    """A query's way as far as it was seen."""

    weight: float
    fold: int
    stages: list[Stage] = field(default_factory=list)


def way(policy: Policy, root: int, partial: PartialLog, row: int, fold: int, kind: Kind) -> Way:
    """Follow the graph by hand."""
    found = Way(float(partial.log.weights[row]), fold)
    at, chance = root, 1.0
    while True:
        node = policy.nodes[at]
        if isinstance(node, Stop):
            assert isinstance(node.action, Accept)
            if kind == "quality":
                label = partial.labels[node.action.tier]
                seen = bool(label.seen[row])
                reward = float(partial.log.tier(node.action.tier).correct[row]) if seen else 0.0
                found.stages.append(Stage(at, seen, chance * float(label.chance[row]), reward))
            return found
        if isinstance(node, Ask):
            answer = partial.answers[node.tier]
            chance = min(chance, float(answer.chance[row]))
            seen = bool(answer.seen[row])
            reward = float(partial.log.tier(node.tier).cost[row]) if seen and kind == "cost" else 0.0
            found.stages.append(Stage(at, seen, chance, reward))
            if not seen:
                return found
            at = node.then
        else:
            assert isinstance(node, Read)
            confidence = float(partial.log.tier(node.tier).readings[0].confidence[row])
            branch = sum(confidence >= cut for cut in node.cuts)
            at = node.missing if isnan(confidence) else node.then[branch]


def models(ways: list[Way], folds: int) -> dict[tuple[int, int], float]:
    """What a node is worth by the model of a fold, learnt on the other folds: the weighted mean, over their queries
    that were seen there, of what it brought and of what the next node is worth; and, as one more row of mean weight,
    the same over this node and all later ones."""
    worth: dict[tuple[int, int], float] = {}
    nodes = sorted({stage.node for each in ways for stage in each.stages}, reverse=True)
    for fold in range(folds):
        all_weight = all_earned = 0.0
        for node in nodes:
            weight = earned = 0.0
            seen: list[float] = []
            for each in ways:
                for at, stage in enumerate(each.stages):
                    if stage.node == node and stage.seen:
                        seen.append(each.weight / stage.chance)
                        if each.fold != fold:
                            ahead = sum(worth[follows.node, fold] for follows in each.stages[at + 1 : at + 2])
                            weight += each.weight / stage.chance
                            earned += each.weight / stage.chance * (stage.reward + ahead)
            all_weight, all_earned = all_weight + weight, all_earned + earned
            row = sum(seen) / max(len(seen), 1)
            worth[node, fold] = (earned + row * all_earned / all_weight) / (weight + row)
    return worth


def doubly_robust(ways: list[Way], worth: dict[tuple[int, int], float], cap: float) -> float:
    """The mean over queries of the model's value and of what it did not expect, weights above ``cap`` left out."""
    total = count = 0.0
    for each in ways:
        value = worth[each.stages[0].node, each.fold]
        for at, stage in enumerate(each.stages):
            if stage.seen and 1.0 / stage.chance <= cap:
                ahead = sum(worth[follows.node, each.fold] for follows in each.stages[at + 1 : at + 2])
                value += (stage.reward + ahead - worth[stage.node, each.fold]) / stage.chance
        total += each.weight * value
        count += each.weight
    return total / count


def merged() -> Policy:
    """tier1; tier3 where it says nothing, tier2 where it doubts, and from there tier3 by another way."""
    nodes = (
        Ask("tier1", 1),
        Read("tier1", "conf", (0.3, 0.7), (4, 2, 6), 4),
        Ask("tier2", 3),
        Read("tier2", "conf", (0.6,), (4, 5), 4),
        Ask("tier3", 7),
        Stop(Accept("tier2")),
        Stop(Accept("tier1")),
        Stop(Accept("tier3")),
    )
    return Policy(NEW.tiers, nodes, (Vertex(0.0, 5.0, 0.5, 0),), OperatingPoint(0, 0, 0.0))


def dial() -> Policy:
    """tier1 alone, or `NEW`'s chain, by a draw."""
    nodes = (Ask("tier1", 1), Stop(Accept("tier1")), *shifted(NEW, 2))
    vertices = (Vertex(0.0, 1.0, 0.4, 0), Vertex(0.0, 5.0, 0.5, 2))
    return Policy(NEW.tiers, nodes, vertices, OperatingPoint(0, 1, 0.625))


def shifted(policy: Policy, by: int) -> list[Ask | Read | Stop]:
    found: list[Ask | Read | Stop] = []
    for node in policy.nodes:
        match node:
            case Ask(tier, then):
                found.append(Ask(tier, then + by))
            case Read(tier, reading, cuts, then, missing):
                found.append(Read(tier, reading, cuts, tuple(at + by for at in then), missing + by))
            case Stop(_):
                found.append(node)
    return found


def at_random(seed: int, n: int) -> PartialLog:
    """A log whose tiers were seen with chances of every query's own, and whose answers were labelled with others."""
    rng = np.random.default_rng(seed)
    log = token_prices(missing=0.1).draw(n, seed, per_group=2)
    log = replace(log, weights=rng.integers(1, 4, n).astype(float))
    chance, draw = np.ones(n), rng.random(n)  # one draw a query: a later tier is seen where an earlier one was
    answers, labels, tiers = {}, {}, []
    for tier in log.tiers:
        seen = draw < chance
        answers[tier.name] = Sighting(seen, chance.copy())
        label = rng.uniform(0.3, 1.0, n)
        known = seen & (rng.random(n) < label)
        labels[tier.name] = Sighting(known, label)
        hidden = hide_tier(tier, seen)
        tiers.append(replace(hidden, correct=np.where(known, tier.correct, np.nan)))
        chance = chance * rng.uniform(0.2, 1.0, n)
    return PartialLog(replace(log, tiers=tuple(tiers)), answers, labels)


def routed(seed: int, n: int) -> PartialLog:
    """What a router left, some requests being explored."""
    return observed_by(OLD, shared_difficulty().draw(n, seed), Exploration(0.2, str(seed)))


@pytest.mark.parametrize("cap", [None, 2.5])
@pytest.mark.parametrize("source", [at_random, routed])
@pytest.mark.parametrize(
    "policy", [NEW, chain(0.5, skip=True), merged(), dial()], ids=["chain", "skip", "merged", "dial"]
)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_query_at_a_time_as_the_papers_say_it(policy: Policy, source: Draw, cap: float | None, seed: int) -> None:
    partial = source(seed, 240)
    found = appraise(policy, partial, cap=cap).estimators
    folds = partial.log.folds(FOLDS, seed=0)
    point = policy.point
    for kind in ("quality", "cost"):
        told = {"dr": 0.0, "switch-dr": 0.0}
        for vertex, share in ((point.low, 1.0 - point.share), (point.high, point.share)):
            root = policy.vertices[vertex].root
            ways = [way(policy, root, partial, row, int(folds[row]), kind) for row in range(len(partial))]
            worth = models(ways, FOLDS)
            told["dr"] += share * doubly_robust(ways, worth, np.inf)
            told["switch-dr"] += share * doubly_robust(ways, worth, cap or np.sqrt(240.0))
        for name, value in told.items():
            said = found.get(name, found["dr"])  # where no weight is above the cap both are the same
            assert getattr(said, kind).mean == pytest.approx(value, rel=1e-9)
