"""The loop: fit on a few full rows, deploy with exploration, refit on what the router left to be seen.

python -m tests.benchmarks.closed_loop [--seeds 20] [--first-seed 0] [--worlds hopeless,shared_difficulty]

It prints held-out quality at the budget before and after, and how often intervals hold the truth: that which a refit
reports, and those by which the refitted policy is appraised on other traffic that the first one routed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metaverify.fitting.fit import fit
from metaverify.fitting.partial_fit import fit_partial
from metaverify.policies.exploration import Exploration
from metaverify.policies.policy import Policy
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.offpolicy import Finding, appraise
from metaverify.simulators.outcome import replay
from metaverify.simulators.replay import route
from metaverify.simulators.trace import observed_by
from metaverify.simulators.worlds import WORLDS

BUDGET = 5.0
APPRAISALS = 25  # a seed
RATE = 0.05


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the loop: held-out quality at the budget, and whether intervals hold the truth."""

    seed: int
    before: float
    after: float
    reported: float  # what the refit says of its policy, less what is true of it; NaN where it is an interval only
    held: bool  # the refit's interval of quality holds the truth
    appraised: tuple[bool, ...]  # so do those of the policy's value on rows that it was not learnt from

    @property
    def rose(self) -> bool:
        """Whether refitting was of use."""
        return self.after > self.before


def at_budget(policy: Policy, log: ReplayLog, budget: float = BUDGET) -> float:
    """Quality on a full log where the dial is set so that the budget is really spent there."""
    ends = [route(policy, log, vertex) for vertex in range(len(policy.vertices))]
    points = sorted((log.mean(end.cost), log.mean(end.quality)) for end in ends)
    cost, quality = np.array(points).T
    return float(np.interp(budget, cost, np.maximum.accumulate(quality)))


def turn(seed: int, unseen: ReplayLog, *, world: str = "hopeless", first: int = 1000, traffic: int = 20_000) -> Turn:
    """One turn of the loop."""
    drawn = WORLDS[world]().draw(first + traffic, seed)
    rows = np.arange(len(drawn))
    old = fit(drawn.take(rows[:first]), budget=BUDGET, folds=3, compare=False).policy
    exploration = Exploration(RATE, f"turn {seed}")
    partial = observed_by(old, drawn.take(rows[first:]), exploration)
    refitted = fit_partial(partial, budget=BUDGET)
    new, truth = refitted.policy, replay(refitted.policy, unseen).quality.mean
    values = [appraised(new, old, world, APPRAISALS * seed + at) for at in range(APPRAISALS)]
    return Turn(
        seed,
        at_budget(old, unseen),
        at_budget(new, unseen),
        np.nan if refitted.quality.mean is None else refitted.quality.mean - truth,
        refitted.quality.low <= truth <= refitted.quality.high,
        tuple(value.low <= truth <= value.high for value in values),
    )


def appraised(new: Policy, old: Policy, world: str, seed: int) -> Finding:
    """What 4,000 fresh queries that one policy routed say of another one's quality."""
    drawn = WORLDS[world]().draw(4000, 1_000_000 + seed)
    return appraise(new, observed_by(old, drawn, Exploration(RATE, f"appraisal {seed}"))).estimators["dr"].quality


def table(turns: Sequence[Turn]) -> str:
    """What came of the turns, in words and figures."""
    gains = np.array([100 * (each.after - each.before) for each in turns])
    off = np.array([100 * each.reported for each in turns])
    held = [held for each in turns for held in each.appraised]
    return "\n".join(
        [
            f"quality at the budget rose in {sum(each.rose for each in turns)} of {len(turns)} seeds, "
            f"by {gains.mean():.2f} points in the mean (least {gains.min():+.2f}, most {gains.max():+.2f})",
            f"reported minus true quality: {np.nanmean(off):+.2f} points in the mean, {np.nanstd(off):.2f} from seed "
            f"to seed; no number in {np.isnan(off).sum()}",
            f"90 % intervals that held the truth: {sum(each.held for each in turns)} of the refits', "
            f"{sum(held)} of the {len(held)} appraisals' ({np.mean(held):.1%})",
        ]
    )


def main() -> None:
    """Print the table, a seed a line before it."""
    options = _parser().parse_args()
    for world in options.worlds.split(","):
        unseen = WORLDS[world]().draw(200_000, 10_007)
        print(world)
        turns = []
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            turns.append(turn(seed, unseen, world=world))
            print(f"  {seed:2}  {turns[-1].before:.4f} -> {turns[-1].after:.4f}", flush=True)
        print(table(turns), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--worlds", default="hopeless,shared_difficulty")
    return parser


if __name__ == "__main__":
    main()
