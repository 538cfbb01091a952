"""Rules of others, restated from their papers as learners: all end in the same policy, so that only the rules differ.

What was changed on the way is said at each.  Routing by context alone is `select.context_only`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import asdict, dataclass, field
from itertools import combinations
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from metaverify.fitting.coding import code_log
from metaverify.fitting.crossfit import Learner
from metaverify.fitting.export import policy_of, tiers_of
from metaverify.fitting.frontier import Frontier, sample_frontier
from metaverify.fitting.lattice import Lattice, Plan
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.models.zoo import default_model, name_of
from metaverify.fitting.rehearse import Rehearsal, rehearse_plans
from metaverify.fitting.routing import OpenLoop
from metaverify.fitting.select import TIERS
from metaverify.fitting.sweep import sweep
from metaverify.fitting.windows import ChainLog, TierRows, WindowChain, policy_of_chains
from metaverify.policies.policy import Policy
from metaverify.simulators.log import ReplayLog

__all__ = ["LEARNERS", "CascadeRouting", "FrugalGPT", "IsotonicPairs", "RandomTiers"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RandomTiers:
    """Random escalation: a tier is drawn by lot and nothing is read.  The best lotteries are mixtures of two tiers
    that stand next to each other on the no-information hull."""

    @property
    def abstain(self) -> None:
        """Some tier always answers."""
        return None

    def describe(self) -> dict[str, Any]:
        """The method's name, for the record."""
        return {"method": "random", "options": {}}

    def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
        """The no-information hull as a policy."""
        rows = ChainLog(log)
        return policy_of_chains(log, [rows.value(WindowChain((name,))) for name in rows.tiers], gap=0.0, near=near)


@dataclass(frozen=True, slots=True)
class IsotonicPairs:
    """Two tiers and one cut: escalate where the calibrated chance that the cheaper one is right is below it.

    Calibration is isotonic regression (Zadrozny and Elkan 2002), so the cuts that make a difference are those between
    its steps.  Every two tiers have such a curve of cost and quality; of all of them the upper envelope is taken, in
    which the best pair depends on the budget.  A missing reading escalates.

    Args:
        gap: no mixture of cuts lies more than this, in quality, above the frontier.
    """

    gap: float = 1e-4

    @property
    def abstain(self) -> None:
        """Some tier always answers."""
        return None

    def describe(self) -> dict[str, Any]:
        """The method's name and options, for the record."""
        return {"method": "isotonic-pair", "options": asdict(self)}

    def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
        """The envelope of all pairs, fixed tiers among them."""
        rows = ChainLog(log)
        chains = [WindowChain((name,)) for name in rows.tiers]
        for cheap, dear in combinations(rows.tiers, 2):
            chains += [WindowChain((cheap, dear), ((0.0, cut),)) for cut in _steps(rows.tiers[cheap], rows.share)]
        return policy_of_chains(log, [rows.value(chain) for chain in chains], gap=self.gap, near=near)


def _steps(tier: TierRows, share: Floats) -> Iterator[float]:
    """The cuts between which a tier's calibrated readings are the same, from 0 on; none where there is no reading."""
    if not tier.readable:
        return
    seen = ~np.isnan(tier.confidence)
    model = IsotonicRegression()
    model.fit(tier.confidence[seen], tier.read_answer[seen], sample_weight=share[seen])
    chance = model.predict(tier.values)
    yield 0.0
    for place in 1 + np.flatnonzero(np.diff(chance) > 0.0):
        yield tier.edge(int(place))


@dataclass(frozen=True, slots=True)
class FrugalGPT:
    """A list of at most three tiers in any order, and a threshold on the score of each answer but the last (Chen,
    Zaharia and Zou 2023, section 3).

    They train a scorer of question and answer; here a tier's first reading is the score.  They look for the list and
    the thresholds with a sampled approximation, and leave out lists whose answers hardly differ; here every list is
    tried on a grid of quantiles.  They take the one list that is best within a budget; here two may be mixed to spend
    it, as with every policy, which does no worse on the log.

    Args:
        longest: tiers of a list.
        levels: places for a threshold.
        gap: no mixture of lists lies more than this, in quality, above the frontier.
    """

    longest: int = 3
    levels: int = 20
    gap: float = 1e-4

    @property
    def abstain(self) -> None:
        """Some tier always answers."""
        return None

    def describe(self) -> dict[str, Any]:
        """The method's name and options, for the record."""
        return {"method": "frugalgpt", "options": asdict(self)}

    def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
        """The best lists and thresholds, by what they earn on the log."""
        found = sweep(ChainLog(log), 1, longest=self.longest, levels=self.levels)
        return policy_of_chains(log, found, gap=self.gap, near=near)


@dataclass(frozen=True, slots=True)
class CascadeRouting:
    """Cascade routing (Dekoninck, Baader and Vechev, ICML 2025): at every step the set of models is chosen with the
    most expected quality of its best answer less λ x its cost, what was already run being paid for; the cheapest model
    of it that was not yet run is run; then the choice is made anew, until nothing more is worth running.

    It is myopic: a set is valued as though all of it were run whatever comes out, so that the worth of stopping in
    between is not seen.  That alone sets it apart from the exact solution here, for the estimates are the same: the
    joint table of `TableLearner`.  They fit regressions of each model's quality, before and after it ran, and take the
    expected maximum as that of normal variables; they tune a λ for each step and drop models that add nothing to a set
    for speed; here it is one λ, and all sets are tried.  A reading with a price of its own is a member of the set like
    a model.  Budgets between two values of λ mix their policies, as theirs do.

    Args:
        model: estimates the table.
        bins: the most bins of a reading.
        prices: values of λ that are tried, at the most.
        slack: the quality, net of λ x cost, that a state may lose to a smaller graph.
    """

    model: TableModel = field(default_factory=default_model)
    bins: int = 8
    prices: int = 30
    slack: float = 2e-3

    @property
    def abstain(self) -> None:
        """Some model always answers."""
        return None

    def describe(self) -> dict[str, Any]:
        """The method's name and options, for the record."""
        options = {name: getattr(self, name) for name in ("bins", "prices", "slack")}
        return {"method": "cascade-routing", "options": {"model": name_of(self.model), **options}}

    def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
        """The policies at all values of λ that no mixture of others beats."""
        study = self._tables().study(log)
        frontier = self._frontier(study.whole_lattice)
        believe = () if near is None else range(len(frontier.plans))
        return policy_of(study.whole_lattice, frontier, study.log, slack=self.slack, believe=believe)

    def rehearse(self, known: ReplayLog, unseen: ReplayLog, memo: MutableMapping[Any, Any]) -> Rehearsal:
        """What is learnt from ``known``, run on ``unseen``; the table is shared with those that see the log alike."""
        study = self._tables().shared(known, memo)
        lattice = study.whole_lattice
        coded = code_log(study.see(unseen), lattice.table.ladders, lattice.table.contexts)
        tiers = tiers_of(study.log, lattice.table.ladders)
        return rehearse_plans(lattice, self._frontier(lattice).plans, tiers, coded)

    def _tables(self) -> TableLearner:
        return TableLearner(self.model, bins=self.bins, first=True, tiers=TIERS)

    def _frontier(self, lattice: Lattice) -> Frontier[Plan]:
        last = 1e-2 / max(lattice.everything, 1e-300)  # all that is given up then is a hundredth of quality
        return sample_frontier(OpenLoop(lattice).solve, lattice.dearest_price, last, self.prices)


LEARNERS = MappingProxyType[str, Callable[[], Learner]](
    {
        "isotonic-pair": IsotonicPairs,
        "cascade-routing": CascadeRouting,
        "frugalgpt": FrugalGPT,
        "random": RandomTiers,
    }
)
"""By the names under which `compare` knows them."""
