"""Methods by name: every way of learning that can be compared, and those that other packages bring."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, TypeAlias, cast

from metaverify.fitting import rivals, tuned
from metaverify.fitting.automix import zoo as automix
from metaverify.fitting.chain import Thresholds
from metaverify.fitting.crossfit import Learner, calibrate, cross_fit
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.select import TIERS, Selected
from metaverify.policies.policy import Policy
from metaverify.simulators.log import ReplayLog

__all__ = [
    "BY_CONTEXT",
    "ENTRY_POINTS",
    "LABELS",
    "LEARNERS",
    "USUAL",
    "Calibrated",
    "Method",
    "Way",
    "known_methods",
    "named_methods",
]

ENTRY_POINTS = "metaverify.methods"
"""The entry-point group of methods from other packages: a learner, a class of learners, or a callable."""

Way: TypeAlias = Learner | Callable[..., Policy]
"""A learner, or a callable from a log (and ``budget=``, if it takes one) to a policy."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A learner whose dial is cross-fitted: asked for a budget, its policy spends that on new queries.

    Args:
        learner: what is learnt; its vertices carry what it expects of them.
        folds: of the cross-fitting.
        seed: of the folds.
    """

    learner: Learner
    folds: int = 5
    seed: int = 0

    @property
    def abstain(self) -> float | None:
        """The worth of handing a query over, to the learner."""
        return self.learner.abstain

    def describe(self) -> dict[str, Any]:
        """The learner's name and options, and how its dial is set."""
        return {**self.learner.describe(), "dial": {"folds": self.folds, "seed": self.seed}}

    def policy(self, log: ReplayLog, *, near: float | None = None) -> Policy:
        """The learner's policy, each vertex at the cost and quality that cross-fitting found for it.

        Raises:
            LogError: there is one group only.
        """
        rows = log.by_id()
        crossed = cross_fit(self.learner, rows, folds=min(self.folds, rows.group_count), seed=self.seed)
        return calibrate(self.learner.policy(rows, near=near), crossed)[0]


@dataclass(frozen=True, slots=True)
class Method:
    """A way of learning by its name, as a comparison asks it: for a policy at each of a few budgets."""

    name: str
    way: Way

    @property
    def label(self) -> str:
        """What it is, for people."""
        return LABELS.get(self.name, self.name)

    def describe(self) -> dict[str, Any] | None:
        """Name and options of a learner, or of a callable that describes itself; None where nothing says."""
        told = getattr(self.way, "describe", None)
        return None if told is None else dict(told())

    def policies(self, log: ReplayLog, budgets: Iterable[float]) -> list[Policy]:
        """What is learnt from the log, the dial at each budget, or as near to it as the policy's range comes.

        A learner's dial is cross-fitted first, unless it does so itself; a callable that takes ``budget`` is asked once
        for each, and its policies are used as they come.

        Raises:
            TypeError: something other than a policy came back.
            ValueError: a policy hands queries over, so that it cannot stand beside those that answer them all.
        """
        if not hasattr(self.way, "policy") and "budget" in inspect.signature(self.way).parameters:
            return [self._checked(self.way(log, budget=budget)) for budget in budgets]
        policy = self._checked(self._learn()(log))
        return [policy.at(budget=max(budget, policy.vertices[0].cost)) for budget in budgets]

    def _learn(self) -> Callable[[ReplayLog], Policy]:
        if not hasattr(self.way, "policy"):
            return self.way
        if isinstance(self.way, Calibrated | Selected):
            return self.way.policy
        return Calibrated(cast(Learner, self.way)).policy

    def _checked(self, policy: object) -> Policy:
        if not isinstance(policy, Policy):
            raise TypeError(f"method {self.name!r} returned {type(policy).__name__}, not a Policy")
        if policy.abstain is not None:
            raise ValueError(f"method {self.name!r} hands queries over; compare ways that answer every query")
        return policy


def context_only() -> Learner:
    """Routing that reads nothing: the best tier of each context."""
    return TableLearner(policies="chain", read=False)


BY_CONTEXT = "thresholds-by-context"
"""The method that is "thresholds" where there is no context."""

LEARNERS: Mapping[str, Callable[[], Learner]] = MappingProxyType(
    {
        "default": Selected,
        "chain": partial(TableLearner, policies="chain", first=True, tiers=TIERS),
        "lattice": partial(TableLearner, policies="lattice", first=True, tiers=TIERS),
        "thresholds": Thresholds,
        BY_CONTEXT: partial(Thresholds, context=True),
        "context-only": context_only,
        **tuned.LEARNERS,
        **rivals.LEARNERS,
        **automix.LEARNERS,
    }
)
"""The methods of this package."""

LABELS = {
    "default": "what fit does: the candidate that cross-fitting prefers",
    "chain": "chain of cuts on a smooth table",
    "lattice": "exact solution of the POMDP",
    "thresholds": "chains of cuts on the log's own rows",
    BY_CONTEXT: "the same for each context, shrunk towards all",
    "context-only": "routing by context, nothing read",
    "optuna": "chains tuned with Optuna",
    "random": "random escalation",
    "frugalgpt": "FrugalGPT: chain of at most 3",
    "cascade-routing": "cascade routing: myopic expected gain",
    "isotonic-pair": "isotonic calibration, one cut on the best pair",
    **automix.LABELS,
}
"""What a method is, for people."""

USUAL = (
    "default",
    "chain",
    "lattice",
    "thresholds",
    BY_CONTEXT,
    "automix-threshold",
    "automix-pomdp",
    "automix-threshold-ibc",
    "isotonic-pair",
    "cascade-routing",
    "frugalgpt",
    "random",
    "context-only",
)
"""What is compared where nothing is named; those of them that are known."""


def known_methods() -> tuple[str, ...]:
    """Every name that `named_methods` knows, this package's first."""
    return (*LEARNERS, *_foreign())


def named_methods(names: Iterable[str]) -> dict[str, Way]:
    """Ways of learning by name.

    Raises:
        ValueError: a name that is not known, or that another package took although it is taken.
    """
    foreign, found = _foreign(), dict[str, Way]()
    for name in names:
        if name in LEARNERS:
            if name in foreign:
                raise ValueError(f"{foreign[name].value} calls its method {name!r}, which is taken; rename it there")
            found[name] = LEARNERS[name]()
        elif name in foreign:
            found[name] = _load(foreign[name])
        else:
            near = difflib.get_close_matches(name, known_methods(), 1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"no method is called {name!r}{hint} There are {', '.join(known_methods())}")
    return found


def _load(point: EntryPoint) -> Way:
    """What an entry point names; where that cannot be had, a way that fails when it is tried, as any other may."""
    try:
        loaded = point.load()
        return cast("Way", loaded() if isinstance(loaded, type) else loaded)
    except Exception as error:  # whatever another package may raise, the other methods are still to be compared
        return partial(_absent, f"{point.value} cannot be loaded: {type(error).__name__}: {error}")


def _absent(reason: str, log: ReplayLog) -> Policy:
    raise ValueError(reason)


def _foreign() -> dict[str, EntryPoint]:
    return {point.name: point for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name)}
