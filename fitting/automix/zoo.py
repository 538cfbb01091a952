"""Every meta-verifier of AutoMix, by the name that a comparison knows it by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from metaverify.fitting.automix.objectives import LargestIBC
from metaverify.fitting.automix.pomdp import AutoMixPOMDP
from metaverify.fitting.automix.routing import AutoMix
from metaverify.fitting.automix.rules import (
    DoubleThreshold,
    GreedyPOMDP,
    POMDPSimple,
    SelfConsistency,
    Threshold,
    TripleThreshold,
)
from metaverify.fitting.crossfit import Learner
from metaverify.fitting.models.automix import AutoMixCounts

__all__ = ["FIXED_ANSWER", "LABELS", "LEARNERS"]

FIXED_ANSWER = "answerable"
"""The reading that says which answers always go on: 0 for "unanswerable" and its like, 1 for all others."""

OWN: Mapping[str, Callable[..., Learner]] = {
    "automix-threshold": partial(AutoMix, Threshold()),
    "automix-double": partial(AutoMix, DoubleThreshold()),
    "automix-triple": partial(AutoMix, TripleThreshold()),
    "automix-self-consistency": partial(AutoMix, SelfConsistency()),
    "automix-greedy": partial(AutoMix, GreedyPOMDP()),
    "automix-pomdp-simple": partial(AutoMix, POMDPSimple()),
    "automix-union": AutoMix,
    "automix-fixed-answer": partial(AutoMix, fixed=FIXED_ANSWER),
    "automix-pomdp": AutoMixPOMDP,
    "automix-pomdp-counts": partial(AutoMixPOMDP, AutoMixCounts()),
}

LEARNERS: Mapping[str, Callable[[], Learner]] = MappingProxyType(
    {
        **OWN,
        **{f"{name}-ibc": partial(learner, objective=LargestIBC()) for name, learner in OWN.items()},
    }
)
"""Each maximises quality under the budget; its twin, "-ibc", AutoMix's own objective."""

OWN_LABELS = {
    "automix-threshold": "AutoMix, one threshold",
    "automix-double": "AutoMix, accept between two thresholds",
    "automix-triple": "AutoMix, three thresholds",
    "automix-self-consistency": "AutoMix, the verifier's majority",
    "automix-greedy": "AutoMix's greedy POMDP, smoothed gain by bin",
    "automix-pomdp-simple": "AutoMix's needy / good / hopeless by bin",
    "automix-union": "AutoMix, the best of its rules",
    "automix-fixed-answer": "AutoMix, unanswerable goes on",
    "automix-pomdp": "AutoMix's POMDP, kernel densities",
    "automix-pomdp-counts": "AutoMix's POMDP, counts",
}

LABELS = {**OWN_LABELS, **{f"{name}-ibc": f"{label}, by IBC" for name, label in OWN_LABELS.items()}}
"""What each is, for people."""
