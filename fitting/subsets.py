"""Too many tiers: which few of them to keep, by what chains over them earn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.chain import Chains, Thresholds
from metaverify.fitting.frontier import mixture_at, trace_frontier
from metaverify.simulators.log import LogError, ReplayLog

__all__ = ["MANY_TIERS", "Subset", "best_subsets"]

Floats = NDArray[np.float64]

MANY_TIERS = 18
"""Tiers among which every subset can be compared."""

SHARES = (0.1, 0.2, 0.4, 0.6, 0.8)
"""Budgets at which subsets are compared: shares of the way from the cheapest tier's cost to the dearest one's."""


@dataclass(frozen=True, slots=True)
class Subset:
    """The best tiers of some number: their names by mean cost, and the quality, in the mean over budgets, that chains
    over all tiers have more."""

    tiers: tuple[str, ...]
    short: float
    left_out: tuple[str, ...] = ()


def best_subsets(log: ReplayLog, most: int, *, budget: float | None = None) -> tuple[Subset, ...]:
    """The best subset of each size from 1 to ``most``; each can keep ``budget``, or any where none is given: it has the
    cheapest tier, from which the dial can begin.

    What matters at a price is the best chain whose tiers are all kept.  That is a maximum over subsets of subsets,
    found for all 2^N at once (the zeta transform over the maximum, Yates 1937), at the prices that belong to five
    budgets, each context with chains of its own.

    Raises:
        LogError: more than ``MANY_TIERS`` tiers.
    """
    count = len(log.tiers)
    if count > MANY_TIERS:
        raise LogError("E_SIZE", f"the log has {count} tiers; name at most {MANY_TIERS} of them with --tiers")
    chains = Thresholds(context=True).chains(log)
    prices = _prices(log, chains)
    value = np.full((len(prices), len(chains.share), 1 << count), -np.inf)
    for tiers, best in chains.best_of_each_list(prices):
        mask = sum(1 << tier for tier in tiers)
        value[:, :, mask] = np.maximum(value[:, :, mask], best)
    for tier in range(count):
        pairs = value.reshape(len(prices), len(chains.share), -1, 2, 1 << tier)
        np.maximum(pairs[..., 1, :], pairs[..., 0, :], out=pairs[..., 1, :])
    total = np.einsum("prm,r->m", np.where(np.isfinite(value), value, -1e9), chains.share) / len(prices)
    sizes = np.array([mask.bit_count() for mask in range(1 << count)])
    costs = [log.mean(tier.cost) for tier in log.tiers]
    most_dear = max(min(costs), 0.0 if budget is None else budget)
    cheap = sum(1 << at for at, cost in enumerate(costs) if cost <= most_dear)
    sizes[np.arange(1 << count) & cheap == 0] = 0
    found = []
    for size in range(1, min(most, count) + 1):
        mask = int(np.where(sizes == size, total, -np.inf).argmax())
        names = tuple(tier.name for at, tier in enumerate(log.tiers) if mask >> at & 1)
        others = tuple(name for name in log.tier_names if name not in names)
        found.append(Subset(names, float(total[-1] - total[mask]), others))
    return tuple(found)


def _prices(log: ReplayLog, chains: Chains) -> Floats:
    """The slope of the chains' frontier at each budget."""
    frontier = trace_frontier(chains)
    costs = [log.mean(tier.cost) for tier in log.tiers]
    slopes = []
    for share in SHARES:
        mix = mixture_at(frontier.costs, min(costs) + share * (max(costs) - min(costs)))
        low, high = (mix.low, mix.high) if mix.low < mix.high else (max(mix.low - 1, 0), mix.low)
        run = frontier.costs[high] - frontier.costs[low]
        slopes.append((frontier.qualities[high] - frontier.qualities[low]) / run if run > 0 else 0.0)
    return np.array(slopes)
