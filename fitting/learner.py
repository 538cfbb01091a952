"""The default way of learning: bins, a joint table, the exact solver, the frontier, a policy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.coding import code_log, ladders_of
from metaverify.fitting.context import KAPPA, contextual_table
from metaverify.fitting.export import policy_of
from metaverify.fitting.frontier import complete_near, trace_frontier
from metaverify.fitting.lattice import Lattice, check_size, lattice_bytes
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.models.copula import Copula
from metaverify.fitting.table import back_off
from metaverify.policies.policy import Policy
from metaverify.simulators.log import LoggedReading, ReplayLog

__all__ = ["LatticeLearner"]

Floats = NDArray[np.float64]

MANY_NODES = 600
"""Nodes from which on a policy is made smaller by up to four times the slack."""

MANY_STATES = 500_000
"""Information states, contexts counted apart, from which on bins are made coarser."""


@dataclass(frozen=True, slots=True)
class LatticeLearner:
    """The exact solution of an estimated table.

    Args:
        model: estimates the table.
        bins: the most bins of a reading.
        kappa: rows of pooled evidence that stand beside each context's own.
        gap: no policy lies more than this, in quality, above the frontier.
        slack: the quality, net of price x cost, that a state may lose to a smaller graph.
        abstain: the worth of handing a query over; None where that is not to be had.
        read: whether readings are used at all; without them this is the best routing by context alone.
        memory: bytes that the solver may take.
    """

    model: TableModel = field(default_factory=Copula)
    bins: int = 8
    kappa: float = KAPPA
    gap: float = 1e-3
    slack: float = 2e-3
    abstain: float | None = None
    read: bool = True
    memory: int = 4 << 30

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"bins is {self.bins}; give at least 1")
        if self.abstain is not None and not 0.0 <= self.abstain <= 1.0:
            raise ValueError(f"abstain is {self.abstain}; the worth of handing over is a quality in [0, 1]")

    def lattice(self, log: ReplayLog) -> Lattice:
        """The log's table over every information state.

        Raises:
            LatticeSizeError: too many tiers, readings or bins for ``memory``.
        """
        used = log if self.read else log.with_readings(())
        contexts = _contexts(log)
        ladders = ladders_of(used, bins_that_fit(used, self.bins, contexts=len(contexts)))
        check_size(ladders, contexts=len(contexts), memory=self.memory)
        table = contextual_table(self.model, code_log(used, ladders, contexts), kappa=self.kappa)
        return Lattice(back_off(table), abstain=self.abstain, memory=self.memory)

    def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
        """The frontier learnt from a log; around the expected cost ``near`` complete, small, and with its beliefs."""
        lattice = self.lattice(log)
        frontier = trace_frontier(lattice, gap=self.gap)
        used = log if self.read else log.with_readings(())
        if near is None:
            return policy_of(lattice, frontier, used, slack=self.slack)
        frontier = complete_near(lattice, frontier, near)
        slack = self.slack
        while True:
            policy = policy_of(lattice, frontier, used, slack=slack, believe=range(len(frontier.plans)))
            if len(policy.nodes) <= MANY_NODES or not 0 < slack < 4 * self.slack:
                return policy
            slack *= 2

    def shortcuts(self, log: ReplayLog) -> str | None:
        """What of the log's readings was made coarser or left out to keep the exact solution small, in words."""
        if not self.read:
            return None
        bins = bins_that_fit(log, self.bins, contexts=len(_contexts(log)))
        pairs = [(source.name, reading.name) for source in log.sources for reading in source.readings]
        left_out = [f"{reading} of {tier}" for tier, reading in pairs if (tier, reading) not in bins]
        finest = {(s.name, r.name): _finest(r, self.bins) for s in log.sources for r in s.readings}
        coarse = sorted({f"{pair[1]} {most}" for pair, most in bins.items() if most < finest[pair]})
        parts = [f"fewer bins than {self.bins}: {', '.join(coarse)}"] if coarse else []
        parts += [f"left out: {', '.join(left_out)}"] if left_out else []
        return "to keep the exact solution small, " + "; ".join(parts) if parts else None

    def describe(self) -> dict[str, Any]:
        """The method's name and options, for the record."""
        names = ("bins", "kappa", "gap", "slack", "abstain", "read")
        options = {name: getattr(self, name) for name in names}
        return {"method": type(self.model).__name__.lower(), "options": options}


def _contexts(log: ReplayLog) -> tuple[str, ...]:
    return () if log.contexts is None else tuple(sorted(set(log.contexts)))


def bins_that_fit(
    log: ReplayLog, bins: int, *, contexts: int = 0, states: int = MANY_STATES
) -> dict[tuple[str, str], int]:
    """The bins that each (tier, reading) can have for a lattice of at most ``states``, or as near as can be.

    A reading after a tier's first is left out where it costs more than the dearest tier.  Then, until it fits: later
    readings get fewer bins, the finest first, down to 2; later readings are left out, the dearest tier's first; first
    readings get fewer bins, down to 3.
    """
    dearest = max(log.mean(tier.cost) for tier in log.tiers)
    first = {(s.name, s.readings[0].name): _finest(s.readings[0], bins) for s in log.sources if s.readings}
    later = {
        (source.name, reading.name): _finest(reading, bins)
        for source in log.sources
        for reading in source.readings[1:]
        if log.mean(reading.price) < dearest
    }
    while lattice_bytes(ladders_of(log, {**first, **later}, cut=_sketch), contexts=contexts)[0] > states:
        if later and max(later.values()) > 2:
            finest = max(later.values())
            later = {reading: min(most, finest - 1) for reading, most in later.items()}
        elif later:
            later = dict(list(later.items())[:-1])
        elif first and max(first.values()) > 3:
            first = {reading: most - 1 for reading, most in first.items()}
        else:
            break
    return {**first, **later}


def _finest(reading: LoggedReading, bins: int) -> int:
    """The most bins that a reading may have: where it is votes, as many as are needed to ask them one by one."""
    return max(bins, reading.votes + 1 if reading.votes else 0)


def _sketch(confidence: Floats, weights: Floats, bins: int) -> tuple[float, ...]:
    """As many cuts as there may be, not worked out."""
    del confidence, weights
    return (0.5,) * (bins - 1)
