"""Regret: what a policy learnt from a drawn log falls short of the true optimum, in worlds whose truth is known.

python -m tests.benchmarks.regret [--rows 50,200] [--worlds hopeless-3] [--only Copula] [--draws 6] [--json]

A policy is valued exactly: it routes a log that holds every combination of readings once, weighted with its
probability under the world, with expected correctness and price.  At budgets 10, 20, 40, 60 and 80 % of the way from
the cheapest to the dearest tier its own dial is set, as its own table has it; its regret there is

    R(max(c, 0.95 B)) - q,

where c and q are what it really costs and earns and R is the frontier of the true joint, solved exactly.  So all are
compared at equal cost, except that a policy that spends less than 95 % of a budget is charged for leaving it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from joblib import delayed, parallel_config
from rich.console import Console
from rich.progress import track
from threadpoolctl import threadpool_limits

from metaverify.fitting.backends import in_turn
from metaverify.fitting.crossfit import Learner
from metaverify.fitting.frontier import mixture_at, trace_frontier
from metaverify.fitting.learner import TableLearner
from metaverify.fitting.models.automix import AutoMixCounts, AutoMixKDE
from metaverify.fitting.models.average import Average
from metaverify.fitting.models.base import TableModel
from metaverify.fitting.models.calibrated import Calibrated
from metaverify.fitting.models.copula import Copula
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.models.kernel import RankKernel
from metaverify.fitting.models.latent import LatentClasses
from metaverify.fitting.models.patterns import Patterns
from metaverify.fitting.models.zoo import default_model
from metaverify.fitting.select import Selected
from metaverify.policies.policy import Policy
from metaverify.report import table
from metaverify.simulators.log import LoggedReading, LoggedTier, ReplayLog
from metaverify.simulators.replay import route
from metaverify.simulators.worlds import WORLDS, World, joint, tier_cost

Curve = tuple[np.ndarray, np.ndarray]  # costs and qualities, both rising

ROWS = (50, 200, 1000, 5000)
SHARES = (0.1, 0.2, 0.4, 0.6, 0.8)
SPENT = 0.95  # of a budget; a policy that leaves more is charged for it
LEVELS = 8


def _alone(model: TableModel) -> TableLearner:
    """A model's table, solved exactly, nothing lost to a smaller graph."""
    return TableLearner(model=model, slack=0.0)


CANDIDATES: Mapping[str, Learner] = {
    "default": Selected(),
    "Copula chain": TableLearner(Copula(), "chain"),
    "Copula + Patterns chain": TableLearner(default_model(), "chain"),
    "Copula": _alone(Copula()),
    "Counts": _alone(Counts()),
    "Counts(200)": _alone(Counts(strength=200.0)),
    "AutoMixCounts": _alone(AutoMixCounts()),
    "AutoMixKDE": _alone(AutoMixKDE()),
    "Calibrated platt": _alone(Calibrated("platt")),
    "Calibrated isotonic": _alone(Calibrated("isotonic")),
    "Patterns": _alone(Patterns()),
    "LatentClasses": _alone(LatentClasses()),
    "RankKernel": _alone(RankKernel()),
    "Copula + Patterns + RankKernel": _alone(Average((Copula(), Patterns(), RankKernel()))),
    "Copula + Patterns": _alone(Average((Copula(), Patterns()))),
    "Copula + RankKernel": _alone(Average((Copula(), RankKernel()))),
    "Average of four": _alone(Average((Copula(), RankKernel(), Patterns(), LatentClasses()))),
}
"""What is compared, by name; anything that learns a policy from a log can stand here."""

WORLDS_COMPARED = (*(f"{name}-3" for name in WORLDS), *(f"{name}-{n}" for name in WORLDS for n in (2, 4)))


def census(world: World) -> ReplayLog:
    """Every combination of readings that can occur, once, weighted with its probability; correctness and the price of
    a call are what is expected given the readings."""
    exact = joint(world)
    kept = exact.mass.reshape(-1) > 0.0
    mass = exact.mass.reshape(-1)[kept]
    level = iter(np.indices(exact.mass.shape).reshape(exact.mass.ndim, -1)[:, kept])
    tiers = tuple(
        LoggedTier(
            name,
            np.clip(exact.quality[k].reshape(-1)[kept] / mass, 0.0, 1.0),
            exact.price[k].reshape(-1)[kept] / mass,
            tuple(
                LoggedReading(e.name, np.append(e.levels, np.nan)[next(level)], np.full(len(mass), e.price))
                for e in world.readings[k]
            ),
        )
        for k, name in enumerate(world.tiers)
    )
    ids = np.array([f"c{at:07d}" for at in range(len(mass))], dtype=object)
    return ReplayLog(ids, tiers, mass, ids)


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """A world, all of it, and the best that can be done there."""

    world: World
    log: ReplayLog
    frontier: Curve
    budgets: tuple[float, ...]


@cache
def truth(name: str) -> Truth:
    """The world of a name such as "hopeless-3"."""
    kind, tiers = name.rsplit("-", 1)
    world = WORLDS[kind](int(tiers), LEVELS)
    log = census(world)
    best = trace_frontier(TableLearner(Counts(), bins=LEVELS).study(log).lattice, gap=1e-5)
    costs = tier_cost(world)
    budgets = tuple(float(costs[0] + share * (costs[-1] - costs[0])) for share in SHARES)
    return Truth(world, log, (np.array(best.costs), np.array(best.qualities)), budgets)


def regrets(true: Truth, policy: Policy) -> list[float]:
    """The policy's regret at each budget, in quality."""
    routes = [route(policy, true.log, vertex) for vertex in range(len(policy.vertices))]
    cost = np.array([true.log.mean(r.cost) for r in routes])
    quality = np.array([true.log.mean(r.quality) for r in routes])
    targets = tuple(vertex.cost for vertex in policy.vertices)
    found = []
    for budget in true.budgets:
        mix = mixture_at(targets, budget)
        spent, earned = ((1.0 - mix.share) * of[mix.low] + mix.share * of[mix.high] for of in (cost, quality))
        found.append(float(np.interp(max(spent, SPENT * budget), *true.frontier) - earned))
    return found


@dataclass(frozen=True, slots=True)
class Cell:
    """One fit."""

    world: str
    rows: int
    draw: int
    candidate: str


def run(cell: Cell, learner: Learner) -> float:
    """Mean regret over the budgets, in points."""
    with threadpool_limits(1):
        true = truth(cell.world)
        policy = learner.policy(true.world.draw(cell.rows, 1000 * cell.draw + cell.rows))
        return 100.0 * float(np.mean(regrets(true, policy)))


def sweep(cells: list[Cell], candidates: Mapping[str, Learner]) -> dict[Cell, float]:
    """The regret of every cell, in points, in the order given; runs under the caller's joblib ``parallel_config``."""
    console = Console(stderr=True)
    tasks = (delayed(run)(cell, candidates[cell.candidate]) for cell in cells)
    bar = track(in_turn(tasks), "fits", total=len(cells), console=console, disable=not console.is_terminal)
    return dict(zip(cells, bar, strict=True))


def main() -> None:
    """Print mean regret by candidate, over all worlds and world by world."""
    options = _parser().parse_args()
    names = options.only.split(",") if options.only else list(CANDIDATES)
    worlds = options.worlds.split(",")
    rows = [int(n) for n in options.rows.split(",")]
    # The dearest first, so that no core is left with one at the end.
    cells = [Cell(w, n, d, c) for n, w, d, c in product(sorted(rows)[::-1], worlds, range(options.draws), names)]
    with parallel_config(n_jobs=-1):
        found = sweep(cells, CANDIDATES)
    if options.json:
        json.dump([{**{f: getattr(c, f) for f in Cell.__slots__}, "regret": r} for c, r in found.items()], sys.stdout)
        return
    for title, among in (("mean of all worlds", worlds), *((world, [world]) for world in worlds)):
        lines = [[c, *(_mean(found, among, n, c) for n in rows)] for c in names]
        print(f"{table([f'regret in points, {title}', *(f'n = {n}' for n in rows)], lines)}\n")


def _mean(found: Mapping[Cell, float], worlds: list[str], rows: int, candidate: str) -> str:
    """Mean and its standard error over draws."""
    values = [[r for c, r in found.items() if (c.world, c.rows, c.candidate) == (w, rows, candidate)] for w in worlds]
    by_draw = np.mean(values, axis=0)
    error = f" ±{by_draw.std(ddof=1) / np.sqrt(len(by_draw)):.2f}" if len(by_draw) > 1 else ""
    return f"{by_draw.mean():.2f}{error}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default=",".join(map(str, ROWS)))
    parser.add_argument("--worlds", default=",".join(WORLDS_COMPARED))
    parser.add_argument("--only", help="names of candidates, by commas")
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--json", action="store_true", help="every fit's regret instead of tables")
    return parser


if __name__ == "__main__":
    from tests.benchmarks import regret  # by its name, so that workers find what they are to run

    regret.main()
