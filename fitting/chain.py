"""Threshold chains: the baseline that everybody has, one cut a tier, tuned by random search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.coding import ladders_of
from metaverify.fitting.export import salt_of, tiers_of
from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Node, Read, Stop
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.simulators.log import LoggedTier, ReplayLog

__all__ = ["Thresholds"]

Floats = NDArray[np.float64]


QUICK = 2_000_000  # queries times chains that take a moment


@dataclass(frozen=True, slots=True)
class _Chain:
    """Tiers in the order in which they are called; a tier's answer is kept from its cut on, the last one's always."""

    tiers: tuple[int, ...]
    cuts: tuple[float, ...]  # one fewer


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Random search over chains: which tiers, by price, and a cut on each one's first reading; context is not used.

    Args:
        trials: the least number of chains tried at random, up to ten times that on small logs; then as many again
            near the best ones.
        rows: the most queries on which they are tried.
        seed: of the search.
    """

    trials: int = 400
    rows: int = 20_000
    seed: int = 0

    @property
    def abstain(self) -> None:
        """A chain always answers."""
        return None

    def describe(self) -> dict[str, Any]:
        """The method's name and options, for the record."""
        return {"method": "thresholds", "options": {"trials": self.trials, "rows": self.rows, "seed": self.seed}}

    def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
        """The frontier of the chains tried, fixed tiers among them, by what they earn on the log itself."""
        del near  # a search has no exact neighbourhood
        sample = (
            log if len(log) <= self.rows else log.take(log.group_draws("thresholds", self.seed) < self.rows / len(log))
        )
        rng = np.random.default_rng(self.seed)
        trial = _Trial(sample)
        trials = max(self.trials, min(10 * self.trials, QUICK // len(sample)))
        tried = {_Chain((t,), ()): trial.run(_Chain((t,), ())) for t in range(len(log.tiers))}
        for chain in _random_chains(trial, rng, trials):
            tried.setdefault(chain, trial.run(chain))
        for _ in range(2):
            for chain in _nearby(trial, rng, _hull(tried), trials // 2):
                tried.setdefault(chain, trial.run(chain))
        return _export(log, [(chain, *tried[chain]) for chain in _hull(tried)])


def _first_reading(tier: LoggedTier) -> Floats | None:
    """Its confidences, or None where there is none to cut."""
    if not tier.readings or np.isnan(tier.readings[0].confidence).all():
        return None
    return tier.readings[0].confidence


class _Trial:
    """A log laid out for running chains over it."""

    def __init__(self, log: ReplayLog) -> None:
        self.share = log.weights / float(log.weights.sum())
        self.correct = [tier.correct for tier in log.tiers]
        self.confidence = [_first_reading(tier) for tier in log.tiers]
        self.ranked = [None if c is None else np.sort(c[~np.isnan(c)]) for c in self.confidence]
        self.read = [tier.cost + tier.readings[0].price if tier.readings else tier.cost for tier in log.tiers]
        self.unread = [tier.cost for tier in log.tiers]

    def run(self, chain: _Chain) -> tuple[float, float]:
        """Mean cost and mean quality; a missing reading goes on to the next tier."""
        going, cost, quality = self.share, 0.0, 0.0
        for tier, cut in zip(chain.tiers[:-1], chain.cuts, strict=True):
            confidence = self.confidence[tier]
            assert confidence is not None, "a tier that is not the last is read"
            kept = np.where(confidence >= cut, going, 0.0)
            cost += _dot(going, self.read[tier])
            quality += _dot(kept, self.correct[tier])
            going = going - kept
        last = chain.tiers[-1]
        return cost + _dot(going, self.unread[last]), quality + _dot(going, self.correct[last])

    def readable(self) -> list[int]:
        return [tier for tier, confidence in enumerate(self.confidence) if confidence is not None]

    def cut(self, tier: int, rank: float) -> float:
        """The reading that a share ``rank`` of the queries is below."""
        ranked = self.ranked[tier]
        assert ranked is not None, "only readable tiers are cut"
        return float(ranked[math.ceil(rank * (len(ranked) - 1))])


def _dot(first: Floats, second: Floats) -> float:
    return float(np.einsum("i,i->", first, second))


def _random_chains(trial: _Trial, rng: np.random.Generator, count: int) -> list[_Chain]:
    tiers, readable = len(trial.correct), trial.readable()
    chains = []
    for _ in range(count):
        last = int(rng.integers(tiers))
        before = [t for t in readable if t < last and rng.random() < 0.5]
        chains.append(_Chain((*before, last), tuple(trial.cut(t, rng.random()) for t in before)))
    return chains


def _nearby(trial: _Trial, rng: np.random.Generator, best: Sequence[_Chain], count: int) -> list[_Chain]:
    """Chains like the best ones, each cut moved by a few per cent of the queries."""
    chains = []
    for _ in range(count):
        chain = best[int(rng.integers(len(best)))]
        moved = (rng.normal(0.0, 0.05) for _ in chain.cuts)
        ranks = [_rank(trial, t, cut) + step for t, cut, step in zip(chain.tiers, chain.cuts, moved, strict=False)]
        cuts = tuple(trial.cut(t, min(max(r, 0.0), 1.0)) for t, r in zip(chain.tiers, ranks, strict=False))
        chains.append(_Chain(chain.tiers, cuts))
    return chains


def _rank(trial: _Trial, tier: int, cut: float) -> float:
    ranked = trial.ranked[tier]
    assert ranked is not None, "only readable tiers are cut"
    return float(np.searchsorted(ranked, cut) / len(ranked))


def _hull(tried: dict[_Chain, tuple[float, float]]) -> list[_Chain]:
    """The chains on the upper concave hull, by cost."""
    hull: list[_Chain] = []
    for chain in sorted(tried, key=lambda c: (tried[c][0], -tried[c][1], c.tiers, c.cuts)):
        cost, quality = tried[chain]
        if hull and quality <= tried[hull[-1]][1] + 1e-12:
            continue
        while len(hull) > 1:
            (c0, q0), (c1, q1) = tried[hull[-2]], tried[hull[-1]]
            if (q1 - q0) * (cost - c1) > (quality - q1) * (c1 - c0):
                break
            hull.pop()
        hull.append(chain)
    return hull


def _export(log: ReplayLog, found: list[tuple[_Chain, float, float]]) -> Policy:
    nodes: list[Node] = []
    vertices = []
    for chain, cost, quality in found:
        vertices.append(Vertex(0.0, cost, quality, len(nodes)))
        nodes += _chain_nodes(log, chain, len(nodes))
    salt = salt_of(nodes, [vertex.root for vertex in vertices])
    return Policy(tiers_of(log, ladders_of(log, 8)), tuple(nodes), tuple(vertices), OperatingPoint(0, 0, 0.0), salt)


def _chain_nodes(log: ReplayLog, chain: _Chain, start: int) -> list[Node]:
    """Three nodes a tier (call, read, accept), two for the last."""
    nodes: list[Node] = []
    for tier, cut in zip(chain.tiers[:-1], chain.cuts, strict=True):
        name, at = log.tiers[tier].name, start + len(nodes)
        reading = log.tiers[tier].readings[0].name
        nodes += [Ask(name, at + 1), Read(name, reading, (cut,), (at + 3, at + 2), at + 3), Stop(Accept(name))]
    last = log.tiers[chain.tiers[-1]].name
    return [*nodes, Ask(last, start + len(nodes) + 1), Stop(Accept(last))]
