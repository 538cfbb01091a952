"""What a fit has to say of what it found, besides figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from metaverify.fitting.chain import Thresholds
from metaverify.fitting.context import FEWEST
from metaverify.fitting.job import Learnt
from metaverify.fitting.select import VISIBLE, Tried
from metaverify.policies.context import interval_label, split_label
from metaverify.policies.policy import Policy
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.outcome import Estimate, mean_with_interval
from metaverify.simulators.references import fixed_tiers

__all__ = ["few_groups", "idle", "narrowed", "reading_pays", "rival_ahead", "scattered", "taken_instead"]

MANY_VALUES = 20  # of a context column: more can hardly all be meant
FEW_GROUPS = 30  # below which intervals are rough


def scattered(log: ReplayLog) -> list[str]:
    """The context columns most of whose values, of many, are too rare to be learnt from."""
    labels = () if log.contexts is None else log.contexts
    values = [split_label(label, len(log.context_names)) for label in labels]
    if any(len(parts) != len(log.context_names) for parts in values):
        return []  # labels made by hand
    counts = [1] * len(labels) if log.counted is None else log.counted.queries.tolist()
    notes = []
    for name, column in zip(log.context_names, zip(*values, strict=True), strict=False):
        rows: Counter[str] = Counter()
        for value, count in zip(column, counts, strict=True):
            rows[value] += count
        rare = sum(count < FEWEST for count in rows.values())
        if len(rows) < MANY_VALUES or rare <= len(rows) / 2:
            continue
        number = all(interval_label(name, (0.0,), value) != f"{name} missing" for value in rows if value)
        way_out = f"it is a number, so cut it (--context {name}:4)" if number else "give a coarser column, or none"
        notes.append(
            f"context {name!r} has {len(rows):,} values, {rare:,} of them in fewer than {FEWEST} queries, too few to "
            f"learn from: {way_out}"
        )
    return notes


def narrowed(policy: Policy, log: ReplayLog) -> list[str]:
    """Which budgets the dial covers, where the cheapest or the dearest tier was not kept and is not reached."""
    known = sorted(fixed_tiers(log), key=lambda point: point.cost)
    kept = {tier.name for tier in policy.tiers}
    low, high = policy.vertices[0].cost, policy.vertices[-1].cost
    beyond = [point for point in (known[0], known[-1]) if point.tier not in kept and not low <= point.cost <= high]
    if not beyond:
        return []
    ends = " and ".join(f"{point.tier} ({point.cost:.4g})" for point in beyond)
    verb = "was" if len(beyond) == 1 else "were"
    return [
        f"the dial covers budgets from {low:.4g} to {high:.4g}: {ends} {verb} not kept; name tiers to keep (--tiers)"
    ]


def taken_instead(first: Tried, taken: Tried, grid: Sequence[float]) -> list[str]:
    """Why another way of learning than the first was taken."""
    return [
        f"{taken.name} was taken instead of {first.name}: on unseen queries it earned "
        f"{100 * taken.gain.mean:.2f} points more, in an interval of "
        f"[{100 * taken.gain.low:+.2f}, {100 * taken.gain.high:+.2f}], "
        f"in the mean over budgets from {grid[0]:.4g} to {grid[-1]:.4g}"
    ]


def reading_pays(better: Estimate) -> list[str]:
    """Whether reading gains over routing without, by an interval of one standard error."""
    if better.high <= 1e-9:
        worse = f"{-100 * better.mean:.2f} points better" if better.mean < -VISIBLE / 10 else "as good"
        return [
            f"reading confidences does not pay here: on unseen queries routing without it was {worse}; "
            "the policy reads nothing"
        ]
    if better.low <= 1e-9:
        return [
            "reading confidences hardly pays here: what it gained over routing without on unseen queries, "
            f"{100 * better.mean:+.2f} points, is within its standard error"
        ]
    return []


def rival_ahead(chosen: Learnt, rival: Learnt) -> list[str]:
    """That the baseline earned clearly more, where it did."""
    ahead = mean_with_interval(rival.gains - chosen.gains, chosen.rows)
    if ahead.low <= 0.0 or ahead.mean < VISIBLE:
        return []
    return [
        f"{rival.candidate.name} gained {100 * ahead.mean:.2f} points more on unseen queries, "
        f"90 % interval [{100 * ahead.low:+.2f}, {100 * ahead.high:+.2f}]; "
        f"try --method {'thresholds' if isinstance(rival.candidate.learner, Thresholds) else 'lattice'}"
    ]


def few_groups(groups: int) -> list[str]:
    """That figures are rough, where they are."""
    few = groups < FEW_GROUPS
    return [f"{groups} groups are few: take figures and intervals as rough"] if few else []


def idle(spent: float, budget: float) -> list[str]:
    """That money is left, where some is."""
    if spent >= 0.98 * budget:
        return []
    return [
        f"the policy spends {spent:.4g} of the {budget:g} allowed: nothing dearer that was learnt "
        "earned more on unseen queries"
    ]
