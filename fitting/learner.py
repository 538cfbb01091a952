"""Learning from a table: readings fused, tiers chosen, bins cut, a joint table estimated, its best policies found."""

from __future__ import annotations

from collections.abc import Collection, MutableMapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.chain import Chains, chain_policy
from metaverify.fitting.coding import CodedLog, code_log, ladders_of
from metaverify.fitting.context import KAPPA, Pooling, contextual_table
from metaverify.fitting.export import policy_of, tiers_of, with_beliefs
from metaverify.fitting.frontier import Frontier, complete_near, concave_hull, trace_frontier
from metaverify.fitting.fusion import Cards, cross_fused, fuse_log, with_inputs
from metaverify.fitting.ladders import Ladder
from metaverify.fitting.lattice import Lattice, Never, Plan, check_size, lattice_bytes
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.models.zoo import default_model, name_of
from metaverify.fitting.rehearse import Rehearsal, rehearse_plans, rehearse_policy
from metaverify.fitting.subsets import Subset, best_subsets
from metaverify.fitting.table import JointTable, at_once, back_off
from metaverify.policies.policy import Policy
from metaverify.simulators.log import LoggedReading, ReplayLog

__all__ = ["Policies", "Study", "TableLearner", "bins_that_fit"]

Floats = NDArray[np.float64]
Memo = MutableMapping[Any, Any]
Policies = Literal["chain", "lattice"]

MANY_NODES = 600
"""Nodes from which on a policy is made smaller by up to four times the slack."""

MANY_STATES = 500_000
"""Information states, contexts counted apart, from which on bins are made coarser."""

ENOUGH = 1e-3
"""The quality that one more tier must add where there are too many."""


@dataclass(frozen=True, slots=True)
class TableLearner:
    """The best policies of an estimated table.

    Args:
        model: estimates the table.
        policies: "chain", one cut a tier in order of price; or "lattice", every policy there is.
        bins: the most bins of a reading.
        context: whether contexts are told apart.
        kappa: rows of pooled evidence that stand beside each context's own.
        pooling: how contexts learn from each other: "average", of their tables with the pooled one; or "offsets", the
            pooled quality given the readings moved by one number for each tier (see `contextual_table`).
        fuse: the aim (see `cross_fused`) of the score that several free readings of an answer are fused into; None
            leaves them apart.
        first: whether only the first free reading of a tier is used.
        tiers: how many tiers may be kept; the best ones are, where there are more.
        gap: no policy lies more than this, in quality, above the frontier.
        slack: the quality, net of price x cost, that a state of a lattice may lose to a smaller graph.
        abstain: the worth of handing a query over; None where that is not to be had.
        read: whether readings are used at all; without them this is the best routing by context alone.
        budget: a mean cost that some policy must not exceed.
        memory: bytes that the solver may take.
    """

    model: TableModel = field(default_factory=default_model)
    policies: Policies = "lattice"
    bins: int = 8
    context: bool = True
    kappa: float = KAPPA
    pooling: Pooling = "average"
    fuse: float | None = None
    first: bool = False
    tiers: int | None = None
    gap: float = 1e-3
    slack: float = 2e-3
    abstain: float | None = None
    read: bool = True
    budget: float | None = None
    memory: int = 4 << 30

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"bins is {self.bins}; give at least 1")
        if self.pooling not in get_args(Pooling):
            raise ValueError(f"pooling is {self.pooling!r}; give one of {', '.join(get_args(Pooling))}")
        if self.abstain is not None and not 0.0 <= self.abstain <= 1.0:
            raise ValueError(f"abstain is {self.abstain}; the worth of handing over is a quality in [0, 1]")
        if self.abstain is not None and self.policies == "chain":
            raise ValueError("a chain never hands over: give policies='lattice' with abstain")

    def study(self, log: ReplayLog) -> Study:
        """The log as this learner sees it, and its table.

        Raises:
            LatticeSizeError: too many tiers, readings or bins for ``memory``.
        """
        used = log if self.read else log.with_readings(())
        if self.first:
            used = used.with_usual_readings()
        if not self.context:
            used = used.without_contexts()
        cards: Cards = {}
        if self.fuse is not None:
            used, cards = cross_fused(used, aim=self.fuse)
        kept = best_tiers(used, self.tiers, budget=self.budget)
        used = used.with_tiers(kept.tiers)
        contexts = () if used.contexts is None else tuple(sorted(set(used.contexts)))
        ladders = ladders_of(used, bins_that_fit(used, self.bins, contexts=len(contexts)))
        check_size(ladders, contexts=len(contexts), memory=self.memory)
        return Study(self, used, cards, kept, self.table(used, ladders, contexts))

    def table(self, log: ReplayLog, ladders: tuple[Ladder, ...], contexts: tuple[str, ...]) -> JointTable:
        """The table of a log over ladders, a row a context and a pooled one."""
        coded = code_log(log, ladders, contexts)
        return contextual_table(self.model, coded, kappa=self.kappa, pooling=self.pooling)

    def rehearse(self, known: ReplayLog, unseen: ReplayLog, memo: Memo) -> Rehearsal:
        """The frontier learnt from ``known``, run on ``unseen``; learners that differ in ``policies`` share a study."""
        study = self.shared(known, memo)
        if self.policies == "chain":
            return rehearse_policy(self._chain_policy(study), study.see(unseen))
        plans = trace_frontier(study.lattice, gap=self.gap).plans
        return rehearse_plans(study.lattice, plans, tiers_of(study.log, study.ladders), study.code(unseen))

    def policy(self, log: ReplayLog, *, near: float | None = None, study: Study | None = None) -> Policy:
        """The frontier learnt from a log; around the expected cost ``near`` complete, small, and with its beliefs.

        ``study`` is the log's, where it is there already.
        """
        study = study or self.study(log)
        if self.policies == "lattice":
            policy = self._lattice_policy(study, near)
        else:
            policy = self._chain_policy(study)
            policy = policy if near is None else with_beliefs(policy, study.lattice, range(len(policy.vertices)))
        return with_inputs(policy, log, study.cards)

    def policy_at(self, study: Study, prices: Sequence[float]) -> Policy:
        """What is best at each of these prices, as one policy without beliefs; equal ones are one vertex."""
        if self.policies == "chain":
            chosen = concave_hull([study.chains.solve(price) for price in prices])
            return chain_policy(study.log, study.chains, chosen)
        return self._reduced(study, Frontier(concave_hull([study.lattice.solve(price) for price in prices])))

    def shared(self, log: ReplayLog, memo: Memo) -> Study:
        """The study of a log, made once for all learners that see it alike."""
        key = tuple((f.name, getattr(self, f.name)) for f in fields(self) if f.name not in ("policies", "gap", "slack"))
        if key not in memo:
            memo[key] = self.study(log)
        return memo[key]  # type: ignore[no-any-return]

    def _chain_policy(self, study: Study) -> Policy:
        return chain_policy(study.log, study.chains, trace_frontier(study.chains, gap=self.gap).plans)

    def _lattice_policy(self, study: Study, near: float | None) -> Policy:
        frontier = trace_frontier(study.lattice, gap=self.gap)
        if near is None:
            return policy_of(study.lattice, frontier, study.log, slack=self.slack)
        frontier = complete_near(study.lattice, frontier, near)
        return self._reduced(study, frontier, believe=range(len(frontier.plans)))

    def _reduced(self, study: Study, frontier: Frontier[Plan], *, believe: Collection[int] = ()) -> Policy:
        slack = self.slack
        while True:
            policy = policy_of(study.lattice, frontier, study.log, slack=slack, believe=believe)
            if len(policy.nodes) <= MANY_NODES or not 0 < slack < 4 * self.slack:
                return policy
            slack *= 2

    def describe(self) -> dict[str, Any]:
        """The method's name and options, for the record."""
        names = ("bins", "context", "kappa", "pooling", "fuse", "first", "tiers", "gap", "slack", "abstain", "read")
        options = {name: getattr(self, name) for name in names}
        return {"method": self.policies, "options": {"model": name_of(self.model), **options}}


class Study:
    """One log as a learner sees it, and what is made of it.

    Attributes:
        log: fused, with the tiers and contexts that are used.
        cards: the scorecards of what was fused, by tier.
        kept: the tiers.
        table: joint, a row a context.
        never: what the lattices must not do (see `Lattice`).
    """

    def __init__(
        self,
        learner: TableLearner,
        log: ReplayLog,
        cards: Cards,
        kept: Subset,
        table: JointTable,
        never: Never = MappingProxyType({}),
    ) -> None:
        self._learner, self._never = learner, never
        self.log, self.cards, self.kept, self.table = log, cards, kept, table

    @property
    def ladders(self) -> tuple[Ladder, ...]:
        """The table's."""
        return self.table.ladders

    @cached_property
    def lattice(self) -> Lattice:
        """Every information state."""
        return self._lattice(self.table)

    @cached_property
    def whole_lattice(self) -> Lattice:
        """Every information state where votes are had all at once."""
        return self._lattice(at_once(self.table))

    def _lattice(self, table: JointTable) -> Lattice:
        options = self._learner
        return Lattice(back_off(table), abstain=options.abstain, memory=options.memory, never=self._never)

    @cached_property
    def chains(self) -> Chains:
        """Every chain of cuts on first readings."""
        return Chains.of_table(self.table)

    def with_tiers(self, names: Sequence[str]) -> Study:
        """The study of the same log with only these tiers, over the same ladders of theirs."""
        log = self.log.with_tiers(names)
        sources = {source.name for source in log.sources}
        ladders = tuple(ladder for ladder in self.ladders if ladder.source in sources)
        cards = {name: parts for name, parts in self.cards.items() if name in sources}
        table = self._learner.table(log, ladders, self.table.contexts)
        return Study(self._learner, log, cards, Subset(log.tier_names, 0.0), table)

    def see(self, log: ReplayLog) -> ReplayLog:
        """Another log as the learner sees it."""
        used = log if self._learner.read else log.with_readings(())
        if self._learner.first:
            used = used.with_usual_readings()
        return fuse_log(used, self.cards).with_tiers(self.kept.tiers)

    def code(self, log: ReplayLog) -> CodedLog:
        """Another log in outcomes of the table's ladders."""
        return code_log(self.see(log), self.ladders, self.table.contexts)

    def shortcuts(self) -> tuple[str, ...]:
        """What was left out or made coarser, in words."""
        return (*_tiers_left_out(self.kept), *_coarsened(self.log, self._learner.bins))


def best_tiers(log: ReplayLog, most: int | None, *, budget: float | None = None) -> Subset:
    """The smallest of the best subsets of up to ``most`` tiers that is not much short of the largest."""
    if most is None or len(log.tiers) <= most:
        return Subset(log.tier_names, 0.0)
    found = best_subsets(log, most, budget=budget)
    return next(subset for subset in found if subset.short <= found[-1].short + ENOUGH)


def _tiers_left_out(kept: Subset) -> Sequence[str]:
    if not kept.left_out:
        return ()
    return (
        f"kept the tiers {', '.join(kept.tiers)}; the others ({', '.join(kept.left_out)}) would have added "
        f"{100 * kept.short:.2f} points to chains on the log itself",
    )


def _coarsened(log: ReplayLog, bins: int) -> Sequence[str]:
    fits = bins_that_fit(log, bins, contexts=0 if log.contexts is None else len(set(log.contexts)))
    finest = {(source.name, r.name): _finest(r, bins) for source in log.sources for r in source.readings}
    left_out = [f"{reading} of {source}" for source, reading in finest if (source, reading) not in fits]
    coarse = sorted({f"{pair[1]} {most}" for pair, most in fits.items() if most < finest[pair]})
    parts = [f"fewer bins than {bins}: {', '.join(coarse)}"] if coarse else []
    parts += [f"left out: {', '.join(left_out)}"] if left_out else []
    return (f"to keep the exact solution small, {'; '.join(parts)}",) if parts else ()


def bins_that_fit(
    log: ReplayLog, bins: int, *, contexts: int = 0, states: int = MANY_STATES
) -> dict[tuple[str, str], int]:
    """The bins that each (tier, reading) can have for a lattice of at most ``states``, or as near as can be.

    A reading after a tier's first is left out where it costs more than the dearest tier, and with a sample those that
    were drawn after it.  Then, until it fits: votes
    are asked all at once, the dearest tier's first; later readings get fewer bins, the finest first, down to 2; later
    readings are left out, the dearest tier's first; first readings get fewer bins, down to 3.
    """
    votes = {(source.name, reading.name): reading.votes for source in log.sources for reading in source.readings}
    dearest = max(log.mean(tier.cost) for tier in log.tiers)
    first = {(s.name, s.readings[0].name): _finest(s.readings[0], bins) for s in log.sources if s.readings}
    later = {
        (source.name, reading.name): _finest(reading, bins)
        for source in log.sources
        for reading in _affordable(log, source.readings[1:], dearest)
    }
    while lattice_bytes(ladders_of(log, {**first, **later}, cut=_sketch), contexts=contexts)[0] > states:
        if one_by_one := [reading for reading, most in {**first, **later}.items() if most > votes[reading] > 1]:
            dear = max(one_by_one, key=list(votes).index)
            (first if dear in first else later)[dear] = min(bins, votes[dear])
        elif later and max(later.values()) > 2:
            finest = max(later.values())
            later = {reading: min(most, finest - 1) for reading, most in later.items()}
        elif later:
            later = dict(list(later.items())[:-1])
        elif first and max(first.values()) > 3:
            first = {reading: most - 1 for reading, most in first.items()}
        else:
            break
    return {**first, **later}


def _affordable(log: ReplayLog, later: Sequence[LoggedReading], dearest: float) -> list[LoggedReading]:
    """The readings that cost less than the dearest tier, without the samples after one that does not."""
    dear = [reading for reading in later if log.mean(reading.price) >= dearest]
    first = next((at for at, r in enumerate(later) if r in dear and r.correct is not None), len(later))
    return [r for at, r in enumerate(later) if r not in dear and (at < first or r.correct is None)]


def _finest(reading: LoggedReading, bins: int) -> int:
    """The most bins that a reading may have: where it is votes, as many as are needed to ask them one by one."""
    return max(bins, reading.votes + 1 if reading.votes else 0)


def _sketch(reading: LoggedReading, weights: Floats, bins: int) -> tuple[float, ...]:
    """As many cuts as there may be, not worked out."""
    del reading, weights
    return (0.5,) * (bins - 1)
