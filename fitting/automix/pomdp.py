"""AutoMix's own POMDP for any number of tiers, solved exactly.

Aggarwal, Madaan et al., AutoMix: Automatically Mixing Language Models, NeurIPS 2024 (arXiv 2310.12963), section 3: the
hidden state is how well every model does on the query; at model i, whose answer is verified, the actions are to keep it
or to route to any j > i, which means to generate and, but for the last model, to verify; reward is
performance - price x cost, undiscounted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from metaverify.fitting.automix.objectives import Envelope, Objective, price_of
from metaverify.fitting.automix.routing import verified
from metaverify.fitting.coding import code_log, ladders_of
from metaverify.fitting.export import keep_vertices, policy_of
from metaverify.fitting.frontier import complete_near, trace_frontier
from metaverify.fitting.ladders import Ladder
from metaverify.fitting.lattice import Lattice, check_size
from metaverify.fitting.learner import best_tiers
from metaverify.fitting.models.automix import AutoMixKDE
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.models.zoo import name_of
from metaverify.fitting.table import back_off
from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Stop
from metaverify.policies.policy import Policy, Vertex
from metaverify.simulators.log import LoggedReading, ReplayLog

__all__ = ["AutoMixPOMDP"]


@dataclass(frozen=True, slots=True)
class AutoMixPOMDP:
    """AutoMix's POMDP, a forward lattice: every tier but the dearest is verified at once where it is called, once.

    A walk may begin at any tier, and tiers alone, unverified, are candidates too.  Contexts and signals are not used.

    Args:
        model: of what verifiers show given how well every model does.
        objective: which vertices are taken; `LargestIBC` is the paper's.
        bins: of a reading at the most, of equal shares; 9 tell 8 votes apart.
        reading: the verifier, by name; None is each tier's first reading.
        tiers: that are kept of more, by their chains (see `best_subsets`).
        gap: no policy lies more than this, in quality, above the frontier.
        slack: the quality, net of price x cost, that a state may lose to a smaller graph.
        memory: bytes that the solver may take.
    """

    model: TableModel = field(default_factory=AutoMixKDE)
    objective: Objective = field(default_factory=Envelope)
    bins: int = 9
    reading: str | None = None
    tiers: int = 5
    gap: float = 1e-3
    slack: float = 2e-3
    memory: int = 4 << 30

    @property
    def abstain(self) -> None:
        """It always answers."""
        return None

    def describe(self) -> dict[str, Any]:
        """The method's name and options, for the record."""
        options = {name: getattr(self, name) for name in ("bins", "reading", "tiers", "gap", "slack")}
        return {
            "method": "automix-pomdp",
            "options": {"model": name_of(self.model), "objective": repr(self.objective), **options},
        }

    def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
        """The plans that the objective takes, around the expected cost ``near`` all there are, with their beliefs.

        Raises:
            LatticeSizeError: too many tiers or bins for ``memory``.
            LogError: no tier has the reading that is named.
        """
        used = self._verified(log)
        ladders = tuple(ladder.at_once for ladder in ladders_of(used, self.bins))
        check_size(ladders, memory=self.memory)
        lattice = self._lattice(used, ladders)
        frontier = trace_frontier(lattice, gap=self.gap)
        if near is not None:
            frontier = complete_near(lattice, frontier, near)
        believed = () if near is None else range(len(frontier.plans))
        planned = policy_of(lattice, frontier, used, slack=self.slack, believe=believed)
        return self._chosen(planned, used)

    def _lattice(self, used: ReplayLog, ladders: tuple[Ladder, ...]) -> Lattice:
        table = back_off(self.model.table(code_log(used, ladders)))
        return Lattice(table, memory=self.memory, forward=True)

    def _verified(self, log: ReplayLog) -> ReplayLog:
        """The log with one reading of every tier's answer but the dearest's, and nothing else to go by."""
        of_tier: dict[str, tuple[LoggedReading, ...]] = {}
        for tier in log.tiers:
            reading = verified(log, tier, self.reading)
            of_tier[tier.name] = () if reading is None else (reading,)
        kept = best_tiers(log, self.tiers).tiers
        told = replace(log.without_contexts(), signals=()).with_tiers(kept)
        *read, last = told.tiers
        tiers = (*(replace(tier, readings=of_tier[tier.name]) for tier in read), replace(last, readings=()))
        return replace(told, tiers=tiers)

    def _chosen(self, planned: Policy, log: ReplayLog) -> Policy:
        """The policy with the vertices that the objective takes, of its own and those of tiers alone."""
        nodes, alone = list(planned.nodes), []
        for tier in log.tiers:
            alone.append(Vertex(0.0, log.mean(tier.cost), log.mean(tier.correct), len(nodes)))
            nodes += [Ask(tier.name, len(nodes) + 1), Stop(Accept(tier.name))]
        every = replace(planned, nodes=tuple(nodes), vertices=(*alone, *planned.vertices))
        taken = self.objective.choose(alone, planned.vertices)
        priced = [replace(v, price=price_of(taken, at)) if v in alone else v for at, v in enumerate(taken)]
        return keep_vertices(every, priced)
