"""Learning with a POMDP solver in place of the exact one: the same tables, the same kind of policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, get_args

from metaverify.fitting.context import KAPPA
from metaverify.fitting.export import policy_of
from metaverify.fitting.frontier import sample_frontier
from metaverify.fitting.lattice import Plan
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.models.zoo import default_model, name_of
from metaverify.fitting.observation import observation_model
from metaverify.fitting.planner import Planner, plan_of
from metaverify.fitting.pomdp import CascadePOMDP, cascade_pomdp
from metaverify.fitting.table import JointTable, at_once
from metaverify.policies.policy import Policy
from metaverify.simulators.log import ReplayLog

__all__ = ["PomdpLearner", "PomdpSolver"]

PomdpSolver = Literal["pouct", "value-iteration"]

LEARNT = 6
"""Times that a fit learns: on all folds but one, five times, and on everything."""


@dataclass(frozen=True, slots=True)
class PomdpLearner:
    """A planner of pomdp-py, asked in every information state that it reaches, at each of a few prices of cost.

    What its decisions cost and earn is exact, so plans that others dominate are dropped and the rest is a frontier.
    Needs pomdp-py.

    Args:
        model: estimates the table.
        solver: "pouct", search by simulation; or "value-iteration", exact, for toys of two tiers of which
            one has a reading, of 2 bins.
        simulations: of a decision of "pouct".
        bins: the most bins of a reading.
        kappa: rows of pooled evidence that stand beside each context's own.
        slack: the quality, net of price x cost, that a state may lose to a smaller graph.
        abstain: the worth of handing a query over; None where that is not to be had.
        prices: at most so many are solved for, the cheapest policy's and the best one's first.
        seed: of the simulations.
    """

    model: TableModel = field(default_factory=default_model)
    solver: PomdpSolver = "pouct"
    simulations: int = 1000
    bins: int = 8
    kappa: float = KAPPA
    slack: float = 2e-3
    abstain: float | None = None
    prices: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.solver not in get_args(PomdpSolver):
            raise ValueError(f"solver is {self.solver!r}; give one of {', '.join(map(repr, get_args(PomdpSolver)))}")
        for name in ("simulations", "prices"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give at least 1")
        self._tables()  # says what is wrong with the other options

    def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
        """The frontier learnt from a log; with its beliefs where a cost ``near`` which it is used is given.

        Raises:
            ImportError: pomdp-py is not installed.
            LatticeSizeError: the problem is too large for the solver.
        """
        study = self._tables().study(log)
        table, lattice = at_once(study.table), study.whole_lattice
        last = 1e-2 / max(lattice.everything, 1e-300)  # all that is given up then is a hundredth of quality
        planners = self._value_iteration(table) if self.solver == "value-iteration" else partial(self._search, table)

        def solve(price: float) -> Plan:
            return plan_of(lattice, planners(price), price)

        frontier = sample_frontier(solve, lattice.dearest_price, last, self.prices)
        believe = () if near is None else range(len(frontier.plans))
        return policy_of(lattice, frontier, study.log, slack=self.slack, believe=believe)

    def describe(self) -> dict[str, Any]:
        """The method's name and options, for the record."""
        names = ("solver", "simulations", "bins", "kappa", "slack", "abstain", "prices", "seed")
        options = {name: getattr(self, name) for name in names}
        return {"method": f"pomdp-py {self.solver}", "options": {"model": name_of(self.model), **options}}

    def _tables(self) -> TableLearner:
        return TableLearner(self.model, bins=self.bins, kappa=self.kappa, abstain=self.abstain)

    def _models(self, table: JointTable, price: float) -> list[CascadePOMDP]:
        """A context row each."""
        rows = range(len(table.share))
        return [cascade_pomdp(observation_model(table, row), price, abstain=self.abstain) for row in rows]

    def _search(self, table: JointTable, price: float) -> list[Planner]:
        from metaverify.fitting.pomdp_py_bridge import PouctPlanner  # only where it is used

        return [
            PouctPlanner(model, simulations=self.simulations, seed=self.seed) for model in self._models(table, price)
        ]

    def _value_iteration(self, table: JointTable) -> Callable[[float], list[Planner]]:
        """Planners at any price, from those at two."""
        from metaverify.fitting.pomdp_py_bridge import MOST_STEPS, ValueIterationPlanner

        free, priced = self._models(table, 0.0), self._models(table, 1.0)
        most = MOST_STEPS / (LEARNT * len(free + priced))
        ends = [
            tuple(ValueIterationPlanner(model, most=most) for model in pair) for pair in zip(free, priced, strict=True)
        ]
        return lambda price: [
            low.through(high, model) for (low, high), model in zip(ends, self._models(table, price), strict=True)
        ]
