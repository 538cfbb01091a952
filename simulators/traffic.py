"""Traffic: queries of a policy's cascade of which nobody need have said what was correct."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np

from metaverify.policies.policy import Policy
from metaverify.policies.tiers import Tier
from metaverify.simulators.log import LogError, LoggedReading, LoggedSignal, LoggedTier, ReplayLog
from metaverify.simulators.reader import log_columns, read_log

__all__ = ["read_traffic", "varying"]

S = TypeVar("S", LoggedTier, LoggedSignal)


def varying(policy: Policy) -> Mapping[tuple[str, str | None], float] | None:
    """What does not always cost the same, (tier, reading), None for an answer, and the most that it cost on the rows
    that the policy was fitted on; None where the file does not say."""
    listed = policy.provenance.get("dearest")
    return None if listed is None else {(tier, reading): price for tier, reading, price in listed}


def read_traffic(
    path: str | os.PathLike[str],
    policy: Policy,
    *,
    costs: Mapping[str, float] | None = None,
    scale: float = 1.0,
    group: str | None = None,
    weight: str | None = None,
) -> ReplayLog:
    """The queries in a file, as the policy would route them: as `read_log`, but nothing need say what was correct.

    A price that no column holds is the policy's, where that is fixed.

    Args:
        path: the file; it has the confidences of every tier that the policy reads.
        policy: whose tiers, readings and context are wanted.
        costs: price per call by tier, instead of the cost columns.
        scale: what the confidences are divided by.
        group: the column that names what is drawn together.
        weight: the column that says how many queries a row stands for.

    Raises:
        LogError: as `read_log`; a price that varies is missing.
    """
    tiers = [tier.name for tier in policy.tiers if tier.answer]
    signals = {tier.name: tier.needs for tier in policy.tiers if not tier.answer}
    samples = sorted({r.name for tier in policy.tiers for r in tier.readings if r.sample})
    columns = log_columns(path, context=policy.context, group=group, weight=weight, signals=signals, unlabelled=tiers)
    given = dict(costs or {})
    for tier in policy.tiers:
        if tier.answer and tier.name not in given and _unpriced(columns.used, columns.form, tier.name):
            given[tier.name] = _fixed(policy, tier, None, tier.price)
    log = read_log(
        path,
        tiers=[tier.name for tier in policy.tiers],
        context=policy.context,
        costs=given,
        scale=scale,
        group=group,
        weight=weight,
        signals=signals,
        votes={r.name: r.votes for tier in policy.tiers for r in tier.readings if r.votes},
        context_cuts=policy.context_cuts,
        unlabelled=tiers,
    )
    of = {tier.name: tier for tier in policy.tiers}
    return replace(
        log,
        tiers=tuple(_priced(policy, of[tier.name], tier, samples) for tier in log.tiers),
        signals=tuple(_priced(policy, of[signal.name], signal, samples) for signal in log.signals),
    )


def _unpriced(used: tuple[str, ...], form: str, tier: str) -> bool:
    return (f"cost_{tier}" if form == "wide" else "cost") not in used


def _fixed(policy: Policy, tier: Tier, reading: str | None, price: float) -> float:
    if (tier.name, reading) in (varying(policy) or {}):
        what = f"tier {tier.name!r}" if reading is None else f"reading {reading!r} of {tier.name!r}"
        raise LogError("E_PRICE", f"{what} has no price in the traffic, and it varies; add a column of what it cost")
    return price


def _priced(policy: Policy, tier: Tier, source: S, samples: list[str]) -> S:
    """The source with what its readings cost by the policy where nothing says so, and samples that change nothing."""
    prices = {reading.name: reading.price for reading in tier.readings}

    def complete(reading: LoggedReading) -> LoggedReading:
        price = reading.price
        if prices.get(reading.name, 0.0) > 0.0 and not price.any():
            price = np.full(len(price), _fixed(policy, tier, reading.name, prices[reading.name]))
        never = np.zeros(len(price)) if tier.answer and reading.name in samples else None
        return replace(reading, price=price, correct=never)

    return replace(source, readings=tuple(complete(reading) for reading in source.readings))
