"""The space of chains with windows, as parameters that an optimiser can move."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.chain import longest_chain
from metaverify.fitting.windows import ChainLog, Window, WindowChain

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

__all__ = ["ChainSpace", "Params"]

Floats = NDArray[np.float64]

Params = Mapping[str, str | float | None]
"""``tier 1``, ``tier 2``, ..: names, None where the chain has ended; ``cut NAME``, the share of a tier's readings below
its cut; ``hopeless NAME``, the share of those that lie below its lower cut."""

NO_MORE = None  # instead of a tier: the chain has ended


class ChainSpace:
    """Which tiers are called, in which order, and where each one's readings are cut.

    A cut is the share of readings below it, so that equal steps move equally many queries, and the nearest place
    between two distinct readings is taken.  A tier that was called already ends the chain, as no tier does; one of
    which every reading goes on is left out.

    Args:
        rows: the log.
        cuts: of a tier that is read, 1 or 2.

    Attributes:
        longest: tiers that a chain may have.
    """

    def __init__(self, rows: ChainLog, cuts: int) -> None:
        self.rows, self.cuts = rows, cuts
        self.longest = longest_chain(len(rows.tiers))
        self._below = {name: _shares_below(rows, name) for name, tier in rows.tiers.items() if tier.readable}

    def chain(self, trial: BaseTrial) -> WindowChain:
        """The chain that a trial suggests."""
        tiers: list[str] = []
        while len(tiers) < self.longest and (not tiers or tiers[-1] in self._below):
            choices = [*self.rows.tiers] if not tiers else [*self.rows.tiers, NO_MORE]
            name = trial.suggest_categorical(f"tier {len(tiers) + 1}", choices)
            if name is NO_MORE or name in tiers:
                break
            tiers.append(str(name))
        windows = {name: self._window(trial, name) for name in tiers[:-1]}
        useful = {name: window for name, window in windows.items() if window != (0.0, math.inf)}
        return WindowChain((*useful, tiers[-1]), (*useful.values(),))

    def params(self, chain: WindowChain) -> Params:
        """The parameters at which a trial suggests this chain, or the one nearest to it with as many cuts."""
        params: dict[str, str | float | None] = {}
        for at in range(self.longest):
            params[f"tier {at + 1}"] = chain.tiers[at] if at < len(chain.tiers) else NO_MORE
        for name, (low, high) in zip(chain.tiers, chain.windows, strict=False):
            tier, below = self.rows.tiers[name], self._below[name]
            level = float(below[tier.place(high)])
            params[f"cut {name}"] = level
            if self.cuts == 2:
                params[f"hopeless {name}"] = float(below[tier.place(low)]) / level if level > 0.0 else 0.0
        return params

    def _window(self, trial: BaseTrial, name: str) -> Window:
        level = trial.suggest_float(f"cut {name}", 0.0, 1.0)
        hopeless = trial.suggest_float(f"hopeless {name}", 0.0, 1.0) if self.cuts == 2 else 0.0
        return self._edge(name, level * hopeless), self._edge(name, level)

    def _edge(self, name: str, level: float) -> float:
        below = self._below[name]
        return self.rows.tiers[name].edge(int(np.searchsorted((below[1:] + below[:-1]) / 2, level)))


def _shares_below(rows: ChainLog, name: str) -> Floats:
    """The share of a tier's readings below each place for a cut, [values + 1]."""
    tier = rows.tiers[name]
    seen = ~np.isnan(tier.confidence)
    weight = np.bincount(np.searchsorted(tier.values, tier.confidence[seen]), rows.share[seen], len(tier.values))
    below = np.concatenate([[0.0], np.cumsum(weight)])
    return np.asarray(below / below[-1])
