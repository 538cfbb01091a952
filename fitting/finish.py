"""What is learnt as it goes into a policy file: rounded, with evidence and provenance, and small enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from metaverify.simulators.log import LoggedTier, fingerprint_queries
from metaverify.simulators.outcome import Estimate, Outcome
from metaverify.simulators.overlap import sample_of_rows
from metaverify.simulators.partial import PartialLog, Sighting, whole

__all__ = ["certified", "finish", "origin", "rounded"]

Floats = NDArray[np.float64]

PRICE_BINS = 8


def finish(chosen: Learnt, job: Job) -> Policy:
    """The policy as it goes into its file: rounded, with evidence and provenance, small enough."""
    policy = rounded(with_evidence(chosen.policy, chosen.targets, chosen.crossed))
    return _small_enough(
        replace(
            policy,
            context=job.log.context_names,
            evidence=_evidence(chosen.outcome, job.folds),
            provenance=_provenance(job, chosen.candidate.learner, policy.tiers),
            context_cuts=job.log.context_cuts,
        )
    )


def rounded(policy: Policy) -> Policy:
    """The policy with its prices and expectations to nine significant digits, and qualities in [0, 1]."""
    return replace(
        policy,
        tiers=tuple(
            replace(t, price=_nine(t.price), readings=tuple(replace(r, price=_nine(r.price)) for r in t.readings))
            for t in policy.tiers
        ),
        vertices=tuple(
            replace(v, price=_nine(v.price), cost=_nine(v.cost), quality=_nine(min(max(v.quality, 0.0), 1.0)))
            for v in policy.vertices
        ),
        point=replace(policy.point, share=_nine(policy.point.share)),
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
    return {**learner.describe(), **origin(whole(job.log), tiers, job.seed, job.fingerprint)}


def origin(partial: PartialLog, tiers: Sequence[Tier], seed: int, mark: str) -> Mapping[str, Any]:
    """What a file remembers of the log that was fitted on: its fingerprint ``mark``, rows, and what they cost."""
    return {
        "log": mark,
        "queries": fingerprint_queries(partial.log),
        "rows": list(sample_of_rows(partial.log, tiers)),
        "dearest": _dearest(partial, tiers),
        "prices": _prices(partial, tiers),
        "seed": seed,
        "metaverify": version("metaverify"),
        "parent": None,
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Bought:
    """What can be bought, a tier's answer (``reading`` None) or a reading, and what it cost where it was."""

    tier: str
    reading: str | None
    price: Floats  # [m]
    weight: Floats  # [m], of the query for all that it stands for; their sum is that of as many equally likely ones

    @classmethod
    def of(cls, tier: str, reading: str | None, price: Floats, weights: Floats, sighting: Sighting | None) -> _Bought:
        if sighting is None:
            return cls(tier, reading, price, weights)
        price, weights, chance = price[sighting.seen], weights[sighting.seen], sighting.chance[sighting.seen]
        squares = float((weights / chance**2).sum())
        return cls(tier, reading, price, weights / chance * (float((weights / chance).sum()) / max(squares, 1e-300)))

    @property
    def varies(self) -> bool:
        return bool((self.price != self.price[:1]).any())


def _bought(partial: PartialLog, tiers: Sequence[Tier]) -> list[_Bought]:
    weights, bought = partial.log.weights, []
    for tier in tiers:
        source = partial.log.source(tier.name)
        if isinstance(source, LoggedTier):
            bought.append(_Bought.of(tier.name, None, source.cost, weights, partial.answers[tier.name]))
        for reading in source.readings:
            sighting = partial.readings.get((tier.name, reading.name), partial.answers.get(tier.name))
            bought.append(_Bought.of(tier.name, reading.name, reading.price, weights, sighting))
    return bought


def _dearest(partial: PartialLog, tiers: Sequence[Tier]) -> list[list[Any]]:
    """Of what does not always cost the same the most that it cost: [tier, reading, price], null for an answer."""
    bought, counted = _bought(partial, tiers), partial.log.counted
    if counted is not None:
        most = counted.dearest
        return [
            [of.tier, of.reading, _nine(most[of.tier, of.reading])] for of in bought if (of.tier, of.reading) in most
        ]
    return [[of.tier, of.reading, _nine(float(of.price.max()))] for of in bought if of.varies]


def _prices(partial: PartialLog, tiers: Sequence[Tier]) -> list[list[Any]]:
    """Of what does not always cost the same a histogram, [tier, reading, cuts, counts], by which a monitor sees that a
    price rose; nothing of a counted log, which has sums only, and of votes, of which few or all may be bought."""
    found: list[list[Any]] = []
    if partial.log.counted is not None:
        return found
    polled = {(t.name, r.name) for t in tiers for r in t.readings if r.votes}
    for of in _bought(partial, tiers):
        if of.varies and (of.tier, of.reading) not in polled:
            cuts = balanced_cuts(of.price, of.weight, PRICE_BINS)
            counts = np.bincount(np.searchsorted(cuts, of.price, "right"), of.weight, len(cuts) + 1)
            found.append([of.tier, of.reading, list(cuts), [round(count) for count in counts.tolist()]])
    return found


def _nine(value: float) -> float:
    """To nine significant digits: what differs between machines beyond that is rounding."""
    return float(f"{value:.9g}")
