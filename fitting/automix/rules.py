"""AutoMix's rules for two tiers: families of sets of bins whose queries go on to the dearer tier.

Aggarwal, Madaan et al., AutoMix: Automatically Mixing Language Models, NeurIPS 2024 (arXiv 2310.12963), and their
package automix-llm 1.0.3.  The cheap tier's confidence is binned; a rule lists sets of bins, a row each, and an
objective takes one of them, or some.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

__all__ = [
    "Binned",
    "DoubleThreshold",
    "GreedyPOMDP",
    "POMDPSimple",
    "Rule",
    "SelfConsistency",
    "Sets",
    "Threshold",
    "TripleThreshold",
    "Union",
    "kinds_of",
    "pomdp_union",
]

Floats = NDArray[np.float64]
Sets = NDArray[np.bool_]
"""[candidates, bins]: the bins whose queries go on to the dearer tier."""

REWARDS = np.arange(5000.0)[:, None]  # of a needy query that goes on, as the package tries them
FEE = 100.0  # that going on costs, in the unit of the rewards


@dataclass(frozen=True, slots=True, eq=False)
class Binned:
    """What a rule is told of the queries whose cheap answer was verified, by bins of its confidence."""

    middle: Floats  # [bins], of the bin, in [0, 1]
    mass: Floats  # [bins], queries
    gain: Floats  # [bins], the sum of the dear answer's quality less the cheap one's
    kinds: Floats  # [bins, 3], queries that are needy, good, hopeless (see `kinds_of`)

    def __len__(self) -> int:
        return len(self.mass)


class Rule(Protocol):
    """A family of sets of bins."""

    def sets(self, seen: Binned) -> Sets:
        """Every candidate, [candidates, bins]."""
        ...


@dataclass(frozen=True, slots=True)
class Threshold:
    """The bins up to one: AutoMix + T."""

    def sets(self, seen: Binned) -> Sets:
        """A set for each bin."""
        return np.tri(len(seen), dtype=bool)


@dataclass(frozen=True, slots=True)
class DoubleThreshold:
    """The bins from one to a later one, never the last: where the small model is neither sure nor hopelessly wrong."""

    def sets(self, seen: Binned) -> Sets:
        """A set for each pair."""
        (low, high), at = _increasing(2, len(seen) - 1), np.arange(len(seen))
        return np.asarray((low <= at) & (at <= high))


@dataclass(frozen=True, slots=True)
class TripleThreshold:
    """The bins up to one, and those from a second to a third, never the last."""

    def sets(self, seen: Binned) -> Sets:
        """A set for each three."""
        (first, low, high), at = _increasing(3, len(seen) - 1), np.arange(len(seen))
        return np.asarray((at <= first) | ((low <= at) & (at <= high)))


@dataclass(frozen=True, slots=True)
class SelfConsistency:
    """The bins up to a half: no more than half of the samples agree."""

    def sets(self, seen: Binned) -> Sets:
        """One set."""
        return (seen.middle <= 0.5)[None]


@dataclass(frozen=True, slots=True)
class POMDPSimple:
    """The released package's POMDP of one step: three hidden states, needy, good and hopeless, and a histogram of them
    in each bin.

    A query goes on where reward · P(needy) + P(hopeless) exceeds 100 · (P(needy) + P(good) + P(hopeless)), and all
    whole rewards below 5,000 are tried: nearly always the bins with most needy queries.  Of an empty bin none go on.
    """

    def sets(self, seen: Binned) -> Sets:
        """A set for each reward that makes a difference."""
        needy, good, hopeless = seen.kinds.T / np.where(seen.mass > 0.0, seen.mass, 1.0)
        return np.unique(needy * REWARDS + hopeless > FEE * (needy + good + hopeless), axis=0)


@dataclass(frozen=True, slots=True)
class GreedyPOMDP:
    """The bins of greatest mean gain, smoothed along the bins by a Gaussian, one more in each set.

    The package measures gains between one value and the next, and applies them around values; here both are around
    values, which is the same for votes.

    Args:
        sigma: of the Gaussian, in bins.
    """

    sigma: float = 2.0

    def sets(self, seen: Binned) -> Sets:
        """A set for each number of bins."""
        gain = gaussian_filter1d(seen.gain / np.where(seen.mass > 0.0, seen.mass, 1.0), self.sigma)
        rank = np.empty(len(seen), dtype=np.int64)
        rank[np.argsort(gain, kind="stable")[::-1]] = np.arange(len(seen))
        return np.asarray(rank <= np.arange(len(seen))[:, None])


@dataclass(frozen=True, slots=True)
class Union:
    """The sets of several rules, in their order."""

    rules: tuple[Rule, ...]

    def sets(self, seen: Binned) -> Sets:
        """All of them."""
        return np.concatenate([rule.sets(seen) for rule in self.rules])


def pomdp_union() -> Union:
    """What the package calls POMDP: the union of four rules."""
    return Union((POMDPSimple(), GreedyPOMDP(), DoubleThreshold(), Threshold()))


def kinds_of(cheap: Floats, dear: Floats) -> Sets:
    """Whether each query [n] is needy (the dear answer is better), good (they are as good, and worth something) or
    hopeless (neither, and both are among the worst tenth of their tier's), [n, 3]."""
    needy = cheap < dear
    good = (cheap == dear) & (cheap != 0.0)
    worst = (cheap <= np.quantile(cheap, 0.1)) & (dear <= np.quantile(dear, 0.1))
    return np.stack([needy, good, worst & ~needy & ~good], axis=1)


def _increasing(count: int, below: int) -> NDArray[np.int64]:
    """Every increasing choice of ``count`` numbers below one, [count, choices, 1]."""
    return np.array([*combinations(range(below), count)], dtype=np.int64).reshape(-1, count).T[:, :, None]
