"""What is learnt as it goes into a policy file: rounded, with evidence and provenance, and small enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaverify.fitting.crossfit import Learner, with_evidence
from metaverify.fitting.export import FILE_TARGET, thin
from metaverify.fitting.job import Job, Learnt
from metaverify.policies.file import dump_policy
from metaverify.policies.policy import Policy
from metaverify.policies.tiers import Tier
from metaverify.simulators.bins import balanced_cuts
from metaverify.simulators.log import LoggedTier, ReplayLog, fingerprint_queries
from metaverify.simulators.outcome import Estimate, Outcome
from metaverify.simulators.overlap import sample_of_rows

__all__ = ["certified", "finish"]

Floats = NDArray[np.float64]

PRICE_BINS = 8


def finish(chosen: Learnt, job: Job) -> Policy:
    """The policy as it goes into its file: rounded, with evidence and provenance, small enough."""
    policy = with_evidence(chosen.policy, chosen.targets, chosen.crossed)
    vertices = tuple(
        replace(v, price=_nine(v.price), cost=_nine(v.cost), quality=_nine(min(max(v.quality, 0.0), 1.0)))
        for v in policy.vertices
    )
    tiers = tuple(
        replace(t, price=_nine(t.price), readings=tuple(replace(r, price=_nine(r.price)) for r in t.readings))
        for t in policy.tiers
    )
    return _small_enough(
        replace(
            policy,
            tiers=tiers,
            vertices=vertices,
            point=replace(policy.point, share=_nine(policy.point.share)),
            context=job.log.context_names,
            evidence=_evidence(chosen.outcome, job.folds),
            provenance=_provenance(job, chosen.candidate.learner, policy.tiers),
            context_cuts=job.log.context_cuts,
        )
    )


def certified(policy: Policy, chosen: Learnt, job: Job) -> Policy:
    """The certified policy with what was found at its operating point."""
    assert policy.certificate is not None, "it was certified"
    point = replace(policy.point, share=_nine(policy.point.share))
    moved = replace(policy, point=point)
    evidence = {key: value for key, value in _evidence(chosen.outcome, job.folds).items() if key != "certificate"}
    certificate = replace(policy.certificate, bound=_nine(policy.certificate.bound), cost=moved.expected_cost)
    return replace(moved, evidence=evidence, certificate=certificate)


def _small_enough(policy: Policy) -> Policy:
    """The policy whose file is not too large: without the beliefs of vertices that are not in use, then without some
    of these vertices."""
    if len(dump_policy(policy).encode()) <= FILE_TARGET:
        return policy
    point = policy.point
    pair = [policy.vertices[at].cost for at in (point.low, point.high)]
    believing = tuple(vertex if vertex.cost in pair else replace(vertex, beliefs={}) for vertex in policy.vertices)
    thinned = thin(replace(policy, vertices=believing), pair)
    at = {vertex.cost: place for place, vertex in enumerate(thinned.vertices)}
    return replace(thinned, point=replace(point, low=at[pair[0]], high=at[pair[1]]))


def _evidence(outcome: Outcome, folds: int) -> Mapping[str, Any]:
    def interval(estimate: Estimate) -> dict[str, float]:
        return {name: _nine(value) for name, value in asdict(estimate).items()}

    return {
        "rows": outcome.n,
        "groups": outcome.groups,
        "folds": folds,
        "quality": interval(outcome.quality),
        "cost": interval(outcome.cost),
        "hull": _nine(outcome.hull),
        "gain": interval(outcome.gain),
        "certificate": "none",
    }


def _provenance(job: Job, learner: Learner, tiers: Sequence[Tier]) -> Mapping[str, Any]:
    return {
        **learner.describe(),
        "log": job.fingerprint,
        "queries": fingerprint_queries(job.log),
        "rows": list(sample_of_rows(job.log, tiers)),
        "dearest": _dearest(job.log, tiers),
        "prices": _prices(job.log, tiers),
        "seed": job.seed,
        "metaverify": version("metaverify"),
        "parent": None,
    }


def _bought(log: ReplayLog, tiers: Sequence[Tier]) -> list[tuple[str, str | None, Floats]]:
    """What can be bought, and what it cost each query: (tier, reading, [n]), None for an answer."""
    bought: list[tuple[str, str | None, Floats]] = []
    for tier in tiers:
        source = log.source(tier.name)
        bought += [(tier.name, None, source.cost)] if isinstance(source, LoggedTier) else []
        bought += [(tier.name, r.name, r.price) for r in source.readings]
    return bought


def _dearest(log: ReplayLog, tiers: Sequence[Tier]) -> list[list[Any]]:
    """Of what does not always cost the same the most that it cost: [tier, reading, price], null for an answer."""
    bought = _bought(log, tiers)
    if log.counted is not None:
        most = log.counted.dearest
        return [[tier, name, _nine(most[tier, name])] for tier, name, _ in bought if (tier, name) in most]
    return [[tier, name, _nine(float(price.max()))] for tier, name, price in bought if (price != price[0]).any()]


def _prices(log: ReplayLog, tiers: Sequence[Tier]) -> list[list[Any]]:
    """Of what does not always cost the same a histogram, [tier, reading, cuts, counts], by which a monitor sees that a
    price rose; nothing of a counted log, which has sums only, and of votes, of which few or all may be bought."""
    found: list[list[Any]] = []
    if log.counted is not None:
        return found
    whole = {(t.name, r.name) for t in tiers for r in t.readings if r.votes}
    for tier, name, price in _bought(log, tiers):
        if (price != price[0]).any() and (tier, name) not in whole:
            cuts = balanced_cuts(price, log.weights, PRICE_BINS)
            counts = np.bincount(np.searchsorted(cuts, price, "right"), log.weights, len(cuts) + 1)
            found.append([tier, name, list(cuts), [round(count) for count in counts.tolist()]])
    return found


def _nine(value: float) -> float:
    """To nine significant digits: what differs between machines beyond that is rounding."""
    return float(f"{value:.9g}")
