"""Certificates on real logs: the table of docs/budgets.md.

python -m tests.benchmarks.budgets LOG[:TIER,TIER] [LOG ..] [--splits 10] [--delta 0.05]

One half of a log's groups is to be fitted on.  The other half is divided again: one part is traffic, of which only
confidences and prices are seen, on the other it is seen what the policy really costs and earns.  Budgets lie 20, 40
and 60 % of the way from the cheapest tier to the dearest one.  *over* counts the splits in which the held-out mean is
above the budget, *clearly* those in which its whole 90 % interval is; *given up* is quality, in points.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from metaverify import Terms, certify, fit, read_log, replay
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.zoo import default_model
from metaverify.report import table
from metaverify.simulators.outcome import Estimate
from metaverify.simulators.references import fixed_tiers

SHARES = (0.2, 0.4, 0.6)
MOST_FITTED = 5000


def main() -> None:
    """Print a line a log and budget, means over the splits."""
    options = _parser().parse_args()
    lines = []
    for text in options.logs:
        path, _, names = text.partition(":")
        lines += table_of(Path(path), names.split(",") if names else None, options.splits, options.delta)
    head = ["log", "budget", "plug-in", "over", "clearly", "certified", "bound", "over", "clearly", "given up"]
    print(table(head, lines))


def table_of(path: Path, tiers: list[str] | None, splits: int, delta: float) -> list[list[str]]:
    """The lines of a log."""
    log = read_log(path, tiers=tiers)
    costs = [point.cost for point in fixed_tiers(log)]
    low, high = min(costs), max(costs)
    lines = []
    for share in SHARES:
        budget, found = low + share * (high - low), []
        for seed in range(splits):
            known, other = log.split(0.5, seed=seed)
            traffic, held_out = other.split(0.5, seed=100 + seed)
            known = known.take(np.argsort(known.group_draws("kept", seed))[:MOST_FITTED])
            plain = fit(known, budget=budget, learner=TableLearner(default_model(), "chain"), compare=False).policy
            unlabelled = replace(
                traffic, tiers=tuple(replace(t, correct=np.full(len(traffic), np.nan)) for t in traffic.tiers)
            )
            sure = certify(plain, unlabelled, budget=budget, terms=Terms(delta=delta))
            assert sure.certificate is not None
            before, after = replay(plain, held_out), replay(sure, held_out)
            given_up = 100 * (before.quality.mean - after.quality.mean)
            found.append((before.cost, after.cost, sure.certificate.bound, given_up))
        plug_in, certified, bound, given_up = zip(*found, strict=True)
        lines.append(
            [
                path.stem,
                f"{budget:.4g}",
                *over(plug_in, budget),
                *over(certified, budget)[:1],
                f"{np.mean(bound):.4g}",
                *over(certified, budget)[1:],
                f"{np.mean(given_up):.2f}",
            ]
        )
    return lines


def over(costs: Sequence[Estimate], budget: float) -> tuple[str, str, str]:
    """The mean cost, how often it was above the budget, and how often its whole 90 % interval was."""
    above, clearly = (sum(getattr(cost, end) > budget for cost in costs) for end in ("mean", "low"))
    return f"{np.mean([cost.mean for cost in costs]):.4g}", str(above), str(clearly)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+", metavar="LOG[:TIER,TIER]")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--delta", type=float, default=0.05)
    return parser


if __name__ == "__main__":
    main()
