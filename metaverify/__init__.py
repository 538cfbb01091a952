"""Learn from logs when to trust a cheap model, when to look again, and when to pay for a better one.

The names below are the whole public face.  Those that decide need the standard library only; those that learn and
replay are imported when they are first used, and need the extra ``fit``.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # the module `typing` is dear to import
if TYPE_CHECKING:
    from typing import Any

    from metaverify.fitting.certify import CertificateError as CertificateError
    from metaverify.fitting.certify import Terms as Terms
    from metaverify.fitting.certify import certify as certify
    from metaverify.fitting.compare import compare as compare
    from metaverify.fitting.comparison import Comparison as Comparison
    from metaverify.fitting.fit import Fit as Fit
    from metaverify.fitting.fit import fit as fit
    from metaverify.fitting.job import FloorError as FloorError
    from metaverify.fitting.learner import TableLearner as TableLearner
    from metaverify.fitting.partial_fit import fit_partial as fit_partial
    from metaverify.policies.actions import Abstain as Abstain
    from metaverify.policies.actions import Accept as Accept
    from metaverify.policies.actions import Action as Action
    from metaverify.policies.actions import Call as Call
    from metaverify.policies.actions import Verify as Verify
    from metaverify.policies.certificate import Certificate as Certificate
    from metaverify.policies.decision_log import DecisionLog as DecisionLog
    from metaverify.policies.editions import editions as editions
    from metaverify.policies.editions import promote as promote
    from metaverify.policies.editions import rollback as rollback
    from metaverify.policies.episode import Episode as Episode
    from metaverify.policies.exploration import Exploration as Exploration
    from metaverify.policies.exploration import ExploredBin as ExploredBin
    from metaverify.policies.exploration import load_exploration as load_exploration
    from metaverify.policies.exploration import save_exploration as save_exploration
    from metaverify.policies.file import PolicyFileError as PolicyFileError
    from metaverify.policies.file import load_policy as load_policy
    from metaverify.policies.file import save_policy as save_policy
    from metaverify.policies.guards import Guard as Guard
    from metaverify.policies.guards import TokenBucket as TokenBucket
    from metaverify.policies.monitor import Monitor as Monitor
    from metaverify.policies.policy import BudgetError as BudgetError
    from metaverify.policies.policy import Policy as Policy
    from metaverify.policies.routed import Routed as Routed
    from metaverify.policies.router import Failure as Failure
    from metaverify.policies.router import Look as Look
    from metaverify.policies.router import Reply as Reply
    from metaverify.policies.router import Router as Router
    from metaverify.policies.shadow import Shadow as Shadow
    from metaverify.policies.store import PolicyStore as PolicyStore
    from metaverify.simulators.counting import count as count
    from metaverify.simulators.counts import Counts as Counts
    from metaverify.simulators.decisions import join_labels as join_labels
    from metaverify.simulators.decisions import read_decisions as read_decisions
    from metaverify.simulators.decisions import read_labels as read_labels
    from metaverify.simulators.digits import load_digits_log as load_digits_log
    from metaverify.simulators.exploration_plan import plan_exploration as plan_exploration
    from metaverify.simulators.importers.importing import Imported as Imported
    from metaverify.simulators.importers.importing import import_log as import_log
    from metaverify.simulators.inspection import inspect_log as inspect_log
    from metaverify.simulators.log import LogError as LogError
    from metaverify.simulators.log import ReplayLog as ReplayLog
    from metaverify.simulators.offpolicy import appraise as appraise
    from metaverify.simulators.outcome import Outcome as Outcome
    from metaverify.simulators.outcome import replay as replay
    from metaverify.simulators.partial_reader import read_partial_log as read_partial_log
    from metaverify.simulators.reader import read_log as read_log
    from metaverify.simulators.sketching import sketch as sketch
    from metaverify.simulators.traffic import read_traffic as read_traffic

_HOMES = {
    "policies.actions": ("Abstain", "Accept", "Action", "Call", "Verify"),
    "policies.certificate": ("Certificate",),
    "policies.decision_log": ("DecisionLog",),
    "policies.editions": ("editions", "promote", "rollback"),
    "policies.episode": ("Episode",),
    "policies.exploration": ("Exploration", "ExploredBin", "load_exploration", "save_exploration"),
    "policies.file": ("PolicyFileError", "load_policy", "save_policy"),
    "policies.guards": ("Guard", "TokenBucket"),
    "policies.monitor": ("Monitor",),
    "policies.policy": ("BudgetError", "Policy"),
    "policies.routed": ("Routed",),
    "policies.router": ("Failure", "Look", "Reply", "Router"),
    "policies.shadow": ("Shadow",),
    "policies.store": ("PolicyStore",),
    "simulators.counting": ("count",),
    "simulators.counts": ("Counts",),
    "simulators.decisions": ("join_labels", "read_decisions", "read_labels"),
    "simulators.digits": ("load_digits_log",),
    "simulators.exploration_plan": ("plan_exploration",),
    "simulators.importers.importing": ("Imported", "import_log"),
    "simulators.inspection": ("inspect_log",),
    "simulators.log": ("LogError", "ReplayLog"),
    "simulators.offpolicy": ("appraise",),
    "simulators.outcome": ("Outcome", "replay"),
    "simulators.partial_reader": ("read_partial_log",),
    "simulators.reader": ("read_log",),
    "simulators.sketching": ("sketch",),
    "simulators.traffic": ("read_traffic",),
    "fitting.certify": ("CertificateError", "Terms", "certify"),
    "fitting.compare": ("compare",),
    "fitting.comparison": ("Comparison",),
    "fitting.fit": ("Fit", "fit"),
    "fitting.job": ("FloorError",),
    "fitting.learner": ("TableLearner",),
    "fitting.partial_fit": ("fit_partial",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("metaverify")
    if name not in _HOME:
        raise AttributeError(f"module 'metaverify' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"metaverify.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "metaverify":
            raise
        raise ImportError(f"metaverify.{name} needs the extra `fit`: pip install 'metaverify[fit]'") from error
    globals()[name] = value
    return value
