"""What every way of learning earns on queries that it has not seen, on real logs: the table of docs/quality.md.

python -m tests.benchmarks.quality FOLDER [--logs a;b] [--sizes 50,200,1000,half] [--splits 10] [--methods a;b]
                                          [--cache .quality] [-o docs/quality.md]

Half of a log's groups is for learning (of which the first n are used), the other half for replay.  Budgets lie 10, 20,
40, 60 and 80 % of the way from the cheapest tier's cost to the dearest one's.  A method that spends another amount is
moved to the budget along the frontier R of fixed tiers and thresholds on the same queries: its score is its quality
+ R(budget) - R(max(cost, .95 budget)).  Differences are paired by query; intervals (90 %) are percentiles of a
bootstrap over groups, a group standing for all the splits in which it was replayed.  Cells that are in the cache are
not computed again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from joblib import delayed, parallel_config
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sklearn import config_context
from threadpoolctl import threadpool_limits

from metaverify import TableLearner, read_log
from metaverify.fitting.backends import in_turn
from metaverify.fitting.chain import Thresholds
from metaverify.fitting.crossfit import CrossFit, Learner, cross_fit, cross_fit_all, rehearse
from metaverify.fitting.frontier import mixture_at
from metaverify.fitting.learner import Policies
from metaverify.fitting.models.zoo import MODELS
from metaverify.fitting.rehearse import Rehearsal
from metaverify.fitting.select import SHARES, TIERS, budget_grid, candidates, choose, context_only, reading_gain
from metaverify.report import table
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.outcome import Ledger, ledger_of
from metaverify.simulators.references import no_information_hull, oracle

Floats = NDArray[np.float64]

MOST_ROWS = 20_000  # that are replayed
RESAMPLES = 400

PAGE = """# Quality on real logs

Printed by `python -m tests.benchmarks.quality FOLDER --splits {splits} -o docs/quality.md`; its docstring says how a
score is made.
*gain* is points of quality over pooled thresholds (one reading, no context, the best chain of up to five tiers, or of
any four of more) at equal cost, in the mean over five budgets and {splits} random halves; *over* is what was spent
beyond the budget, *sd* its standard deviation over budgets and halves, *s* seconds of one core for everything,
cross-fitting included.
"bare" methods see what thresholds see; a model by its name is the exact solution of its table.

```text
{found}
```
"""
BASELINE = "thresholds"


@dataclass(frozen=True)
class Task:
    """A log, perhaps with some of its tiers only."""

    file: str
    tiers: tuple[str, ...] | None = None


TASKS = {
    "plaut_mcqa12": Task("plaut_mcqa12"),
    "mmlupro_openai": Task("mmlupro_openai"),
    "mmlupro_llama": Task("mmlupro_llama"),
    "mmlupro_qwen3": Task("mmlupro_qwen3"),
    "anlp_automix2": Task("anlp_automix2"),
    "yuuxii_qa12": Task("yuuxii_qa12"),
    "frugalml_s2t": Task("frugalml_s2t"),
    "frugalml_sa_zh": Task("frugalml_sa_zh"),
    "plaut, 4 tiers": Task("plaut_mcqa12", ("solar", "gpt_3p5_turbo", "yi_34b", "gpt_4_turbo")),
    "openai, 3 tiers": Task("mmlupro_openai", ("gpt_4p1_nano", "gpt_4p1_mini", "gpt_4p1")),
    "llama, 3 tiers": Task("mmlupro_llama", ("llama_3p1_8b", "llama_3p1_70b", "llama_3p1_405b")),
    "qwen3, 3 tiers": Task("mmlupro_qwen3", ("qwen3_4b", "qwen3_14b", "qwen3_14b_think")),
}
LANGUAGE = tuple(TASKS)[:6]  # the logs of language models, over which means are taken


def bare(log: ReplayLog) -> ReplayLog:
    """One reading a tier, and no context."""
    return one_reading(log).without_contexts()


def one_reading(log: ReplayLog) -> ReplayLog:
    """One reading a tier."""
    return replace(log, tiers=tuple(replace(tier, readings=tier.readings[:1]) for tier in log.tiers))


def whole(log: ReplayLog) -> ReplayLog:
    """All that the log has."""
    return log


def on_table(model: str, policies: Policies = "lattice") -> Learner:
    """The policies of a model's table, over the best five tiers."""
    return TableLearner(MODELS[model](), policies, tiers=TIERS)


@dataclass(frozen=True)
class Method:
    """A way of learning; ``learner`` None is the default of `fit`."""

    learner: Callable[[], Learner] | None
    sees: Callable[[ReplayLog], ReplayLog]


METHODS: dict[str, Method] = {
    BASELINE: Method(Thresholds, bare),
    "thresholds by context": Method(lambda: Thresholds(context=True, kappa=0.0), one_reading),
    **{f"{name}, bare": Method(partial(on_table, name), bare) for name in MODELS if name != "default"},
    "chain, bare": Method(partial(on_table, "default", "chain"), bare),
    "lattice, bare": Method(partial(on_table, "default"), bare),
    "default, bare": Method(None, bare),
    "default": Method(None, whole),
}
"""What is compared; "bare" sees one reading a tier and no context, as thresholds do, and a model by its name is solved
exactly."""


# ------------------------------------------------------------------------------------------------------ one cell


@dataclass(frozen=True)
class Cell:
    """One log, one size, one split."""

    task: str
    size: str
    split: int

    def file(self, cache: Path, method: str) -> Path:
        name = f"{self.task}.{self.size}.{self.split}.{method}.npz".replace(" ", "_").replace(",", "")
        return cache / name


def run_cell(folder: Path, cache: Path, cell: Cell, methods: Sequence[str]) -> Cell:
    """Learn and replay what the cache does not have."""
    wanted = [name for name in methods if not cell.file(cache, name).exists()]
    if wanted:
        known, unseen, budgets = rows_of(folder, cell)
        with threadpool_limits(1), config_context(assume_finite=True, skip_parameter_validation=True):
            for name in wanted:
                start = time.process_time()
                ledgers, curve, taken = learn(METHODS[name], known, unseen, budgets)
                np.savez_compressed(
                    cell.file(cache, name),
                    quality=np.array([ledger.quality for ledger in ledgers], dtype=np.float32),
                    cost=[unseen.mean(ledger.cost) for ledger in ledgers],
                    curve=curve,
                    seconds=time.process_time() - start,
                    taken=taken,
                )
    return cell


def rows_of(folder: Path, cell: Cell) -> tuple[ReplayLog, ReplayLog, tuple[float, ...]]:
    """The queries to learn from, those to replay, and the budgets."""
    task = TASKS[cell.task]
    log = read_log(folder / f"{task.file}.parquet", tiers=task.tiers, context=("dataset",)).by_id()
    known, unseen = log.split(0.5, seed=cell.split)
    if cell.size != "half":
        order = np.argsort(known.group_draws("size", cell.split), kind="stable")
        known = known.take(np.sort(order[: int(cell.size)]))
    unseen = unseen.take(np.sort(np.argsort(unseen.group_draws("replay", cell.split), kind="stable")[:MOST_ROWS]))
    return known, unseen, budget_grid(log)


def learn(
    method: Method, known: ReplayLog, unseen: ReplayLog, budgets: Sequence[float]
) -> tuple[list[Ledger], list[tuple[float, float]], str]:
    """What a method earns on unseen queries at each budget, the costs and qualities of all its vertices there, and
    which way of learning it took."""
    known, unseen = method.sees(known), method.sees(unseen)
    if method.learner is not None:
        learner = method.learner()
        crossed, tried = cross_fit(learner, known), rehearse(learner, known, unseen)
        return [dial(tried, crossed, budget) for budget in budgets], curve_of(tried, unseen), ""
    tries = candidates(known, budget=budgets[0])
    blind = context_only(known)
    every = cross_fit_all([*(c.learner for c in tries), blind.learner], known)
    at, _ = choose(tries, every[:-1], budget_grid(known))
    tried, unread = (rehearse(learner, known, unseen) for learner in (tries[at].learner, blind.learner))
    ledgers = []
    for budget in budgets:
        vain = reading_gain(every[at], every[-1], [budget]).high <= 1e-9
        ledgers.append(dial(unread, every[-1], budget) if vain else dial(tried, every[at], budget))
    return ledgers, curve_of(tried, unseen), tries[at].name


def dial(tried: Rehearsal, crossed: CrossFit, budget: float) -> Ledger:
    """The dial set where cross-fitting found the budget to be spent."""
    mix = mixture_at(tried.targets, crossed.target(budget))
    return ledger_of(tried.tiers, [(1.0 - mix.share, tried.routes[mix.low]), (mix.share, tried.routes[mix.high])])


def curve_of(tried: Rehearsal, unseen: ReplayLog) -> list[tuple[float, float]]:
    return [(unseen.mean(routes.cost), unseen.mean(routes.quality)) for routes in tried.routes]


# ----------------------------------------------------------------------------------------------------- the tables


@dataclass(frozen=True)
class Scores:
    """A method on one task and size: quality at each budget, gains over the baseline with intervals, spend."""

    quality: Floats  # [budgets]
    gain: float  # points, in the mean over budgets
    low: float
    high: float
    over: float  # spend beyond the budget, a share, mean over budgets and splits
    spread: float  # its standard deviation over splits
    seconds: float
    by_budget: Floats  # [budgets], points
    taken: dict[str, int]


def scores_of(
    folder: Path, cache: Path, task: str, size: str, splits: int, methods: Sequence[str]
) -> tuple[dict[str, Scores], Floats, Floats, tuple[float, ...]]:
    """Every method's scores, the hull's and the oracle's quality, and the budgets."""
    totals: dict[str, Floats] = {}  # a method: summed differences by query
    seen: Floats = np.zeros(0)
    quality: dict[str, list[Floats]] = {name: [] for name in methods}
    facts: dict[str, list[tuple[Floats, float, Floats, str]]] = {name: [] for name in methods}
    hulls, oracles = [], []
    ids: dict[str, int] = {}
    budgets: tuple[float, ...] = ()
    for split in range(splits):
        cell = Cell(task, size, split)
        _, unseen, budgets = rows_of(folder, cell)
        rows = np.array([ids.setdefault(group, len(ids)) for group in unseen.group_ids])
        stored = {name: dict(np.load(cell.file(cache, name))) for name in methods}
        frontier = envelope(unseen, stored[BASELINE]["curve"])
        shifted = {name: moved(stored[name], budgets, frontier) for name in methods}
        if len(seen) < len(ids):
            seen = np.append(seen, np.zeros(len(ids) - len(seen)))
            totals = {n: np.append(totals.get(n, np.zeros(0)), np.zeros(len(ids)))[: len(ids)] for n in methods}
        seen += np.bincount(rows, minlength=len(ids))
        for name in methods:
            apart = (shifted[name] - shifted[BASELINE]).mean(axis=0)
            totals[name] += np.bincount(rows, apart, minlength=len(ids))
            quality[name].append(shifted[name].mean(axis=1))
            over = stored[name]["cost"] / np.array(budgets) - 1.0
            apart_by_budget = (shifted[name] - shifted[BASELINE]).mean(axis=1)
            facts[name].append((apart_by_budget, float(stored[name]["seconds"]), over, str(stored[name]["taken"])))
        hull = no_information_hull(unseen)
        hulls.append([hull.quality(budget) for budget in budgets])
        oracles.append(oracle(unseen).quality)
    found = {}
    intervals = bootstrap(np.stack([totals[name] for name in methods]), seen)
    for name, (low, high) in zip(methods, intervals, strict=True):
        by_budget = 100 * np.mean([fact[0] for fact in facts[name]], axis=0)
        over = np.array([fact[2] for fact in facts[name]])
        taken = [fact[3] for fact in facts[name]]
        found[name] = Scores(
            np.mean(quality[name], axis=0),
            100 * float(totals[name].sum() / seen.sum()),
            100 * low,
            100 * high,
            float(over.mean()),
            float(over.std()),
            float(np.mean([fact[1] for fact in facts[name]])),
            by_budget,
            {each: taken.count(each) for each in sorted(set(taken))},
        )
    return found, np.mean(hulls, axis=0), np.mean(oracles) * np.ones(len(SHARES)), budgets


def envelope(unseen: ReplayLog, curve: Floats) -> Callable[[float], float]:
    """The upper concave hull of fixed tiers and the baseline's vertices, on the queries replayed."""
    points = [(unseen.mean(tier.cost), unseen.mean(tier.correct)) for tier in unseen.tiers]
    hull: list[tuple[float, float]] = []
    for cost, quality in sorted([*points, *((float(c), float(q)) for c, q in curve)]):
        if hull and quality <= hull[-1][1]:
            continue
        while len(hull) > 1 and (hull[-1][1] - hull[-2][1]) * (cost - hull[-1][0]) <= (quality - hull[-1][1]) * (
            hull[-1][0] - hull[-2][0]
        ):
            hull.pop()
        hull.append((cost, quality))
    costs, qualities = zip(*hull, strict=True)
    return lambda cost: float(np.interp(cost, costs, qualities))


def moved(stored: dict[str, Any], budgets: Sequence[float], frontier: Callable[[float], float]) -> Floats:
    """Quality by query, [budgets, n], as if exactly the budget had been spent."""
    shift = [frontier(b) - frontier(max(float(c), 0.95 * b)) for b, c in zip(budgets, stored["cost"], strict=True)]
    return np.asarray(stored["quality"] + np.array(shift)[:, None], dtype=np.float64)


def bootstrap(totals: Floats, seen: Floats) -> list[tuple[float, float]]:
    """The 90 % percentile interval of totals / seen over resampled groups, for each method."""
    rng = np.random.default_rng(0)
    sums = np.vstack([totals, seen])  # [methods + 1, groups]
    means = []
    for _ in range(RESAMPLES):
        drawn = sums @ np.bincount(rng.integers(len(seen), size=len(seen)), minlength=len(seen))
        means.append(drawn[:-1] / drawn[-1])
    low, high = np.quantile(means, [0.05, 0.95], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def report(
    folder: Path, cache: Path, tasks: Sequence[str], sizes: Sequence[str], splits: int, methods: list[str]
) -> str:
    """All tables, as text."""
    gains: dict[tuple[str, str, str], Scores] = {}
    parts = []
    for task in tasks:
        for size in sizes:
            found, hull, best, budgets = scores_of(folder, cache, task, size, splits, methods)
            gains |= {(task, size, name): scores for name, scores in found.items()}
            head = ["quality at budget", *(f"{b:.4g}" for b in budgets), "gain", "90 % interval", "over", "sd", "s"]
            rows = [["hull", *(f"{q:.4f}" for q in hull), "", "", "", "", ""]]
            rows += [[name, *row_of(found[name])] for name in methods]
            rows.append(["oracle", *(f"{q:.4f}" for q in best), "", "", "", "", ""])
            parts.append(f"{task}, n = {size}\n\n{table(head, rows)}")
    return "\n\n".join([summary(gains, tasks, sizes, methods), *parts])


def row_of(scores: Scores) -> list[str]:
    return [
        *(f"{q:.4f}" for q in scores.quality),
        f"{scores.gain:+.2f}",
        f"[{scores.low:+.2f}, {scores.high:+.2f}]",
        f"{100 * scores.over:+.1f} %",
        f"{100 * scores.spread:.1f} %",
        f"{scores.seconds:.1f}",
    ]


def summary(
    gains: dict[tuple[str, str, str], Scores], tasks: Sequence[str], sizes: Sequence[str], methods: list[str]
) -> str:
    """Gains over the baseline by log, and their mean over the logs of language models."""
    parts = []
    for name in methods[1:]:
        rows = [[task, *(f"{gains[task, size, name].gain:+.2f}" for size in sizes)] for task in tasks]
        mean = [np.mean([gains[t, size, name].gain for t in tasks if t in LANGUAGE]) for size in sizes]
        rows.append(["mean of language logs", *(f"{value:+.2f}" for value in mean)])
        parts.append(f"{name}: gain over {BASELINE}, points\n\n{table(['log', *(f'n = {s}' for s in sizes)], rows)}")
    chosen = []
    for size in sizes:
        counts: dict[str, int] = {}
        for task in tasks:
            for each, count in gains[task, size, "default"].taken.items() if "default" in methods else ():
                counts[each] = counts.get(each, 0) + count
        chosen.append(f"n = {size}: " + ", ".join(f"{each} {count}" for each, count in sorted(counts.items())))
    return "\n\n".join([*parts, "what the default took, over logs and splits\n\n" + "\n".join(chosen)])


# --------------------------------------------------------------------------------------------------------- running


def main() -> None:
    """Fill the cache, print the tables."""
    options = parse()
    folder, cache = Path(options.folder), Path(options.cache)
    if not folder.is_dir():
        sys.exit(f"{folder} is not a folder of logs")
    cache.mkdir(parents=True, exist_ok=True)
    tasks = options.logs.split(";") if options.logs else list(TASKS)
    sizes = options.sizes.split(",")
    methods = [BASELINE, *(m for m in (options.methods or ";".join(METHODS)).split(";") if m != BASELINE)]
    cells = [Cell(task, size, split) for split in range(options.splits) for size in sizes for task in tasks]
    console = Console(stderr=True)
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    showing = Progress(*bar, console=console, disable=not console.is_terminal)
    with showing as progress, parallel_config(n_jobs=options.jobs):
        done = progress.add_task("cells", total=len(cells))
        jobs = (delayed(run_cell)(folder, cache, cell, methods) for cell in cells)
        for cell in in_turn(jobs):
            progress.update(done, advance=1, description=f"{cell.task} {cell.size} {cell.split}")
    found = report(folder, cache, tasks, sizes, options.splits, methods)
    print(found)
    if options.out:
        Path(options.out).write_text(PAGE.format(splits=options.splits, found=found), encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where the logs are")
    parser.add_argument("--logs", help="some of them, separated by ;")
    parser.add_argument("--sizes", default="50,200,1000,half")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--methods", help="some of them, separated by ;")
    parser.add_argument("--cache", default=".quality")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("-o", "--out", help="also write the page of the documentation")
    return parser.parse_args()


if __name__ == "__main__":
    main()
