"""Fit on one half of a log, replay on the other: does the budget hold, and what is gained over the hull?

python -m tests.benchmarks.halves LOG [--tiers a,b] [--context task] [--budgets 1,2] [--seeds 5]
"""

from __future__ import annotations

import argparse
import time

from metaverify import fit, read_log, replay
from metaverify.report import table
from metaverify.simulators.references import fixed_tiers


def main() -> None:
    """Print a line a budget and seed, and the means."""
    options = _parser().parse_args()
    names = options.tiers.split(",") if options.tiers else None
    log = read_log(options.log, tiers=names, context=options.context.split(",") if options.context else ())
    costs = [point.cost for point in fixed_tiers(log)]
    low, high = min(costs), max(costs)
    budgets = [float(b) for b in options.budgets.split(",")] if options.budgets else []
    rows = []
    for budget in budgets or [low + share * (high - low) for share in (0.1, 0.2, 0.4, 0.6, 0.8)]:
        for seed in range(options.seeds):
            known, unseen = log.split(0.5, seed=seed)
            start = time.perf_counter()
            fitted = fit(known, budget=budget, compare=False)
            seconds = time.perf_counter() - start
            outcome = replay(fitted.policy, unseen)
            gain = f"{100 * outcome.gain.mean:+.2f}"
            interval = f"[{100 * outcome.gain.low:+.2f}, {100 * outcome.gain.high:+.2f}]"
            over = f"{100 * (outcome.cost.mean / budget - 1):+.1f} %"
            quality = f"{outcome.quality.mean:.4f}"
            rows.append(
                [
                    f"{budget:.4g}",
                    str(seed),
                    f"{outcome.cost.mean:.4g}",
                    over,
                    quality,
                    gain,
                    interval,
                    f"{seconds:.1f}",
                ]
            )
    print(table(["budget", "seed", "cost", "over", "quality", "gain", "90 % interval", "seconds"], rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log")
    for name in ("tiers", "context", "budgets"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--seeds", type=int, default=3)
    return parser


if __name__ == "__main__":
    main()
