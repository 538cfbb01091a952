"""Comparison: methods side by side on queries that none of them learnt from, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise, product
from pathlib import Path

import numpy as np
from joblib import delayed
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from metaverify.fitting.backends import in_turn
from metaverify.fitting.comparison import (
    Adherence,
    CalibrationBin,
    Comparison,
    Differences,
    FixedTier,
    MethodScores,
    Point,
    ReadingCalibration,
    Region,
)
from metaverify.fitting.methods import BY_CONTEXT, USUAL, Method, Way, named_methods
from metaverify.fitting.trial import Failed, Fold, Trial, run_trial
from metaverify.policies.policy import BudgetError
from metaverify.simulators.bootstrap import RESAMPLES, estimate, group_members, holm, p_value, resample
from metaverify.simulators.counts import Counts, rows_of
from metaverify.simulators.inspection import inspect_log
from metaverify.simulators.log import LogError, ReplayLog, fingerprint, fingerprint_queries
from metaverify.simulators.outcome import LEVEL, Estimate, mean_with_interval
from metaverify.simulators.references import no_information_hull, oracle
from metaverify.simulators.scores import Curve, Tiers, aiq, apgr, area, gain, ibc

__all__ = ["compare"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHARES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
"""Budgets of a comparison: shares of the way from the cheapest tier's cost to the dearest one's, denser at the cheap
end, where routing has most to gain."""

WIDE = 100.0  # times the cheapest tier's cost that the dearest one's is, from which on the way is one of ratios

REGIONS = 5  # of equal width, over which AutoMix averages its lift
BINS = 10  # of a calibration curve


def compare(
    log: ReplayLog | Counts,
    methods: Mapping[str, Way] | Iterable[str] | None = None,
    *,
    budgets: Sequence[float] | None = None,
    folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    resamples: int = RESAMPLES,
    resume: Path | None = None,
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> Comparison:
    """Compare methods under budget constraints.

    For each fold a method learns, and sets its dial, on the other folds only; then it routes that fold's queries at
    every budget.  So what it earns and what it spends are both those of new queries.  Intervals and p values come from
    one cluster bootstrap over all methods, in which the hull is drawn too.  Runs folds and methods in parallel under
    the caller's joblib ``parallel_config``; the result is the same whatever that is.

    Args:
        log: what to learn from and to route, or its counts; row order does not matter.
        methods: their names (see `known_methods`), or learners and callables by name.  A callable takes a log, and
            ``budget`` if it wants to, and returns a policy.
        budgets: mean costs per query; where not given, ten from the cheapest tier to the dearest, each the same number
            of times the one before where tiers cost less than a hundredth of others, and `SHARES` of the way otherwise.
        folds: of the log's groups.
        repeats: how often the log is divided into folds, each time differently.
        seed: of the first division and of the bootstrap.
        resamples: of the bootstrap.
        resume: a folder that keeps what is done, so that a comparison that was broken off, or to which a method or a
            repeat is added, does not do it again.
        progress: told what was done, and the share of the whole that is done.

    Raises:
        BudgetError: a budget is below the cost of the cheapest tier.
        LogError: there are fewer groups than folds, or nothing to choose between.
        ValueError: a method that is not known, no method at all, or none that could be compared.

    Example:
        >>> from metaverify import compare, load_digits_log
        >>> found = compare(load_digits_log(), ["chain", "thresholds"], budgets=[2.0, 4.0], folds=2)
        >>> [method.name for method in found.methods if method.gain.low > 0]
        ['chain', 'thresholds']
    """
    if folds < 2 or repeats < 1 or seed < 0 or resamples < 2:
        given = f"folds is {folds}, repeats {repeats}, seed {seed} and resamples {resamples}"
        raise ValueError(f"{given}; give at least 2, 1, 0 and 2")
    rows = rows_of(log).by_id()
    grid = _budgets(rows, budgets)
    every = [Method(name, way) for name, way in _ways(methods, by_context=rows.contexts is not None).items()]
    divisions = [Fold(at, folds, seed + repeat, grid) for repeat in range(repeats) for at in range(folds)]
    divisions[0].rows(rows)  # refuses a log that cannot be divided
    if resume is not None:
        resume.mkdir(parents=True, exist_ok=True)
    mark, rows = fingerprint(rows), rows.evened()
    tasks = list(product(every, divisions))
    jobs = (delayed(run_trial)(method, rows, fold, resume, mark) for method, fold in tasks)
    sums = _Sums(rows, grid, every, repeats)
    finished = zip(tasks, in_turn(jobs), strict=True)
    for done, ((method, fold), tried) in enumerate(finished, start=1):
        sums.add(method, tried)
        progress(f"{method.name}, fold {fold.at + 1}", done / len(tasks))
    if not sums.records:
        told = "; ".join(f"{name}: {error}" for name, error in sums.failed.items())
        raise ValueError(f"no method could be compared: {told}")
    with threadpool_limits(1):  # one order of summation
        drawn = _Drawn(sums, resample(sums.by_group.T, resamples=resamples, seed=seed))
    return Comparison(
        fingerprint=mark,
        queries=fingerprint_queries(rows),
        rows=rows.queries,
        groups=sums.groups,
        context=rows.context_names,
        tiers=drawn.fixed_tiers(),
        inspection=inspect_log(rows),
        folds=folds,
        repeats=repeats,
        seed=seed,
        level=LEVEL,
        resamples=resamples,
        budgets=grid,
        cost_range=drawn.cost_range,
        hull=no_information_hull(rows).points,
        oracle=oracle(rows),
        methods=tuple(drawn.scores(method, sums.records[method.name]) for method in sums.compared),
        failed=sums.failed,
        differences=drawn.differences(),
        calibration=_calibration(rows),
    )


def _ways(methods: Mapping[str, Way] | Iterable[str] | None, *, by_context: bool) -> Mapping[str, Way]:
    if methods is None:
        methods = [name for name in USUAL if by_context or name != BY_CONTEXT]
    found = methods if isinstance(methods, Mapping) else named_methods(methods)
    if not found:
        raise ValueError("there is no method to compare; name one at least")
    return found


def _budgets(log: ReplayLog, budgets: Sequence[float] | None) -> tuple[float, ...]:
    costs = {tier.name: log.mean(tier.cost) for tier in log.tiers}
    cheapest, dearest = min(costs, key=costs.__getitem__), max(costs.values())
    least = costs[cheapest]
    if budgets is None:
        if not dearest > least:
            raise LogError("E_EQUAL", "every tier costs the same, so no budget can choose between them")
        if dearest > WIDE * least > 0.0:
            return tuple(np.geomspace(least, dearest, len(SHARES) + 1)[1:].tolist())
        return tuple(least + share * (dearest - least) for share in SHARES)
    for budget in budgets:
        if not (least * (1 - 1e-9) <= budget < math.inf):
            raise BudgetError(
                f"budget {budget:g} is no finite number of at least {least:.6g}, the mean cost of {cheapest}, the "
                "cheapest tier"
            )
    if not budgets or not max(budgets) > least:
        raise BudgetError(f"give a budget above {least:.6g}, the mean cost of {cheapest}, the cheapest tier")
    return tuple(sorted({float(budget) for budget in budgets}))


@dataclass(slots=True)
class _Record:
    """What is kept of a method's trials beside the sums by group."""

    calls: Floats  # [budgets, tiers], weights of queries
    accepts: Floats  # [budgets, tiers]
    known_gain: list[Floats] = field(default_factory=list)  # a fold: [budgets]
    over: list[Floats] = field(default_factory=list)  # a fold: [budgets], spent beyond the budget, a share of it
    readings: set[str] = field(default_factory=set)
    by_context: bool = False
    seconds: list[float] = field(default_factory=list)  # a fold


class _Sums:
    """Sums by group of everything that is resampled: weights, what tiers cost and earn, what methods do.

    Attributes:
        by_group: [columns, groups].
        records: of the methods that have not failed.
        failed: errors by method.
    """

    def __init__(self, log: ReplayLog, budgets: tuple[float, ...], methods: Sequence[Method], repeats: int) -> None:
        self.log, self.budgets, self.repeats = log, budgets, repeats
        self.failed: dict[str, str] = {}
        self._methods = methods
        self._member = group_members(log)
        self.groups = int(self._member.max()) + 1
        tiers = [*(tier.cost for tier in log.tiers), *(tier.correct for tier in log.tiers)]
        self._start = 1 + len(tiers)
        self.by_group = np.zeros((self._start + 2 * len(budgets) * len(methods), self.groups))
        self._put(0, np.arange(len(log)), np.array([np.ones(len(log)), *tiers]))
        shape = len(budgets), len(log.tiers)
        self.records = {method.name: _Record(np.zeros(shape), np.zeros(shape)) for method in methods}

    @property
    def compared(self) -> list[Method]:
        """The methods that did not fail."""
        return [method for method in self._methods if method.name in self.records]

    def columns(self, name: str) -> slice:
        """Where a method's costs at each budget stand, and then its qualities."""
        at = [method.name for method in self._methods].index(name)
        width = 2 * len(self.budgets)
        return slice(self._start + width * at, self._start + width * (at + 1))

    def add(self, method: Method, tried: Trial | Failed) -> None:
        """Add up one trial."""
        if isinstance(tried, Failed):
            self.failed.setdefault(method.name, tried.error)
            self.records.pop(method.name, None)
        elif method.name in self.records:
            record, unseen = self.records[method.name], self.log.weights[tried.rows]
            values = np.concatenate([tried.cost, tried.quality])
            self._put(self.columns(method.name).start, tried.rows, values / self.repeats)
            record.calls += tried.calls / self.repeats
            record.accepts += tried.accepts / self.repeats
            record.known_gain.append(tried.known_gain)
            record.over.append(np.average(tried.cost, axis=1, weights=unseen) / np.array(self.budgets) - 1.0)
            record.readings.update(tried.readings.tolist())
            record.by_context |= bool(tried.by_context)
            record.seconds.append(float(tried.seconds))

    def _put(self, start: int, rows: Ints, values: Floats) -> None:
        """Add weighted values [columns, rows] to the columns from ``start`` on."""
        member, weights = self._member[rows], self.log.weights[rows]
        for at, column in enumerate(values, start=start):
            self.by_group[at] += np.bincount(member, weights * column, self.groups)


class _Drawn:
    """The statistics of a comparison, each over the sample and its resamples."""

    def __init__(self, sums: _Sums, totals: Floats) -> None:
        self._sums, self._log, self._budgets = sums, sums.log, sums.budgets
        means = totals / totals[:, :1]
        count = len(self._log.tiers)
        self._tiers = Tiers(means[:, 1 : 1 + count], means[:, 1 + count : 1 + 2 * count])
        self._curves = {}
        for name in sums.records:
            cost, quality = np.split(means[:, sums.columns(name)], 2, axis=1)
            self._curves[name] = Curve(cost, quality)
        self._gains = {name: gain(curve, self._tiers, np.array(self._budgets)) for name, curve in self._curves.items()}
        self.cost_range = float(self._tiers.cost[0].min()), self._budgets[-1]

    def fixed_tiers(self) -> tuple[FixedTier, ...]:
        """Every tier alone."""
        return tuple(
            FixedTier(tier.name, self._estimate(self._tiers.cost[:, at]), self._quality(self._tiers.quality[:, at]))
            for at, tier in enumerate(self._log.tiers)
        )

    def scores(self, method: Method, record: _Record) -> MethodScores:
        """All of one method's."""
        curve, gains = self._curves[method.name], self._gains[method.name]
        optimism = np.mean(record.known_gain, axis=0) - gains[0]
        regions, lift = self._regions(curve)
        recovered, gap = apgr(curve, self._tiers)
        within = self._tiers.cost[0, self._tiers.best] <= self.cost_range[1] * (1 + 1e-9)
        return MethodScores(
            name=method.name,
            label=method.label,
            describe=method.describe(),
            curve=self._points(curve, gains, record, optimism),
            gain=self._estimate(gains.mean(axis=1)),
            gain_as_spent=self._estimate((curve.quality - self._tiers.hull(curve.cost)).mean(axis=1)),
            area=self._estimate(area(curve, self._tiers, *self.cost_range)),
            adherence=Adherence(float(np.mean(record.over)), float(np.std(record.over))),
            regions=regions,
            ibc_lift=lift,
            aiq=self._estimate(aiq(curve, self._tiers, *self.cost_range)),
            apgr=self._ratio(recovered, gap) if within else None,
            optimism=float(optimism.mean()),
            readings=tuple(sorted(record.readings)),
            by_context=record.by_context,
            seconds=float(np.mean(record.seconds)),
        )

    def differences(self) -> Differences:
        """Every method's gain against every other's."""
        names = tuple(self._gains)
        gains = {name: values.mean(axis=1) for name, values in self._gains.items()}
        apart = {(a, b): gains[a] - gains[b] for a, b in product(names, names)}
        found = {pair: self._estimate(values) for pair, values in apart.items()}
        p = {pair: p_value(values, self._sums.groups) for pair, values in apart.items()}
        pairs = list(combinations(names, 2))
        corrected = {(name, name): 1.0 for name in names}
        for (a, b), value in zip(pairs, holm([p[pair] for pair in pairs]), strict=True):
            corrected[a, b] = corrected[b, a] = value

        def table(of: Callable[[tuple[str, str]], float]) -> tuple[tuple[float, ...], ...]:
            return tuple(tuple(of((a, b)) for b in names) for a in names)

        return Differences(
            names,
            table(lambda pair: found[pair].mean),
            table(lambda pair: found[pair].low),
            table(lambda pair: found[pair].high),
            table(p.__getitem__),
            table(corrected.__getitem__),
        )

    def _points(self, curve: Curve, gains: Floats, record: _Record, optimism: Floats) -> tuple[Point, ...]:
        names, total = self._log.tier_names, float(self._log.weights.sum())
        return tuple(
            Point(
                budget=budget,
                cost=self._estimate(curve.cost[:, at]),
                quality=self._quality(curve.quality[:, at]),
                gain=self._estimate(gains[:, at]),
                calls=dict(zip(names, (record.calls[at] / total).tolist(), strict=True)),
                accepts=dict(zip(names, (record.accepts[at] / total).tolist(), strict=True)),
                optimism=float(optimism[at]),
            )
            for at, budget in enumerate(self._budgets)
        )

    def _regions(self, curve: Curve) -> tuple[tuple[Region, ...], Estimate | None]:
        edges = np.linspace(*self.cost_range, REGIONS + 1).tolist()
        found, lifts = [], []
        for low, high in pairwise(edges):
            own, base = ibc(curve, self._tiers, (low + high) / 2)
            found.append(Region(low, high, self._estimate(own), self._ratio(own - base, base)))
            lifts.append(_divided(own - base, base))
        if any(region.lift is None for region in found):
            return tuple(found), None
        return tuple(found), self._bounded(np.mean(lifts, axis=0))

    def _ratio(self, above: Floats, below: Floats) -> Estimate | None:
        """The estimate of a ratio; None where the interval of its denominator touches 0."""
        clear = self._estimate(below)
        return self._bounded(_divided(above, below)) if clear.low > 0.0 or clear.high < 0.0 else None

    def _bounded(self, values: Floats) -> Estimate | None:
        """The estimate; None where its interval has no end."""
        found = self._estimate(values)
        return found if math.isfinite(found.high - found.low) else None

    def _quality(self, values: Floats) -> Estimate:
        """The estimate of a mean that lies in [0, 1]."""
        found = self._estimate(values)
        return Estimate(found.mean, max(found.low, 0.0), min(found.high, 1.0))

    def _estimate(self, values: Floats) -> Estimate:
        return estimate(values, self._sums.groups)


def _divided(above: Floats, below: Floats) -> Floats:
    """The ratio [S]; as good as without bound in a resample whose denominator is 0."""
    return np.asarray(above / np.where(below != 0.0, below, np.finfo(np.float64).tiny ** 0.5))


def _calibration(log: ReplayLog) -> tuple[ReadingCalibration, ...]:
    """Each tier's readings against the quality of the answers that they speak of, in bins of about equal size."""
    found = []
    for tier, reading in [(each, reading) for each in log.tiers for reading in each.readings]:
        correct = tier.correct
        if reading.correct is not None:
            correct = np.where(np.isnan(reading.correct), correct, reading.correct)
        read = log.weights * ~np.isnan(reading.confidence)
        cuts = reading.cuts(log.weights, BINS)
        place = np.searchsorted(cuts, reading.confidence, side="right")
        bins = []
        for at, (low, high) in enumerate(pairwise((0.0, *cuts, 1.0))):
            rows = np.flatnonzero((place == at) & (read > 0.0))
            if len(rows):
                here = log.take(rows)
                quality = mean_with_interval(correct[rows], here)
                bounded = Estimate(quality.mean, max(quality.low, 0.0), min(quality.high, 1.0))
                share = float(read[rows].sum() / read.sum())
                bins.append(CalibrationBin(low, high, share, here.mean(reading.confidence[rows]), bounded))
        found.append(ReadingCalibration(tier.name, reading.name, tuple(bins)))
    return tuple(found)
