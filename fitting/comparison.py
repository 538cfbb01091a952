"""What a comparison found: scores of methods on unseen queries with intervals, and the differences between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from metaverify.simulators.inspection import LogReport
from metaverify.simulators.outcome import Estimate
from metaverify.simulators.references import HullPoint

__all__ = [
    "Adherence",
    "CalibrationBin",
    "Comparison",
    "Differences",
    "FixedTier",
    "MethodScores",
    "Point",
    "ReadingCalibration",
    "Region",
]


@dataclass(frozen=True, slots=True)
class Point:
    """What a method cost and earned on unseen queries when asked for a budget.

    ``gain`` is over the no-information hull at exactly the budget (see `metaverify.simulators.scores.gain`), and
    ``optimism`` how much larger it was on the queries that were learnt from.  ``calls`` and ``accepts`` are shares of
    queries by tier.
    """

    budget: float
    cost: Estimate
    quality: Estimate
    gain: Estimate
    calls: Mapping[str, float]
    accepts: Mapping[str, float]
    optimism: float


@dataclass(frozen=True, slots=True)
class Region:
    """AutoMix's incremental benefit per cost in the middle of a range of costs, and its lift over the base.

    None where it is undefined: the interval of what it is divided by touches 0.
    """

    low: float
    high: float
    ibc: Estimate | None
    lift: Estimate | None


@dataclass(frozen=True, slots=True)
class Adherence:
    """What was spent beyond a budget as a share of it: mean and standard deviation over budgets and folds."""

    mean: float
    sd: float


@dataclass(frozen=True, slots=True)
class MethodScores:
    """One method's scores on unseen queries; see `metaverify.simulators.scores` for what defines each.

    Attributes:
        gain: over the no-information hull at exactly the budget, in the mean over budgets.
        gain_as_spent: the same at what was really spent, wherever that lies.
        area: the same in the mean over all costs of the range.
        ibc_lift: in the mean over the regions; None where one of them has none.
        apgr: None where the gap between the tiers is not clear, or the range ends before the better one's cost.
        optimism: in the mean over budgets.
        readings: that its policies look at, as "tier.reading".
        by_context: whether its policies decide by the context.
        seconds: of one core, that learning took without one fold, in the mean over folds.
    """

    name: str
    label: str
    describe: Mapping[str, Any] | None
    curve: tuple[Point, ...]
    gain: Estimate
    gain_as_spent: Estimate
    area: Estimate
    adherence: Adherence
    regions: tuple[Region, ...]
    ibc_lift: Estimate | None
    aiq: Estimate
    apgr: Estimate | None
    optimism: float
    readings: tuple[str, ...]
    by_context: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Differences:
    """Gain of the row's method less that of the column's, paired query by query, with two-sided p and Holm's."""

    names: tuple[str, ...]
    mean: tuple[tuple[float, ...], ...]
    low: tuple[tuple[float, ...], ...]
    high: tuple[tuple[float, ...], ...]
    p: tuple[tuple[float, ...], ...]
    holm: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Answers of like confidence: their share of those that were read, mean confidence, mean quality."""

    low: float
    high: float
    share: float
    confidence: float
    quality: Estimate


@dataclass(frozen=True, slots=True)
class ReadingCalibration:
    """How good a tier's answers are, by what a reading said of them."""

    tier: str
    reading: str
    bins: tuple[CalibrationBin, ...]


@dataclass(frozen=True, slots=True)
class FixedTier:
    """A tier that is always called and never read."""

    name: str
    cost: Estimate
    quality: Estimate


@dataclass(frozen=True, slots=True)
class Comparison:
    """Methods side by side on the same unseen queries.

    Attributes:
        fingerprint: of the log.
        queries: which queries they were, whatever contexts and readings the log was told to have.
        cost_range: from the cheapest tier to the largest budget, over which areas are taken.
        methods: in the order in which they were given; ``failed`` has the errors of those that could not be compared.
    """

    fingerprint: str
    queries: str
    rows: int
    groups: int
    context: tuple[str, ...]
    tiers: tuple[FixedTier, ...]
    inspection: LogReport
    folds: int
    repeats: int
    seed: int
    level: float
    resamples: int
    budgets: tuple[float, ...]
    cost_range: tuple[float, float]
    hull: tuple[HullPoint, ...]
    oracle: HullPoint
    methods: tuple[MethodScores, ...]
    failed: Mapping[str, str]
    differences: Differences
    calibration: tuple[ReadingCalibration, ...]

    @property
    def ranking(self) -> tuple[MethodScores, ...]:
        """The methods by their gain, the best first."""
        return tuple(sorted(self.methods, key=lambda method: -method.gain.mean))

    def difference(self, one: str, other: str) -> tuple[Estimate, float]:
        """The gain of one method less another's, and Holm's p of its being none."""
        d = self.differences
        i, j = d.names.index(one), d.names.index(other)
        return Estimate(d.mean[i][j], d.low[i][j], d.high[i][j]), d.holm[i][j]

    def to_json(self, *, seconds: bool = True) -> dict[str, Any]:
        """Plain types, numbers to nine significant digits.

        Everything but ``seconds`` is the same for the same log, methods and seed, on however many cores; without them
        those are null.
        """
        methods = [asdict(method) for method in self.methods]
        if not seconds:
            methods = [{**method, "seconds": None} for method in methods]
        return _nine(  # type: ignore[no-any-return]
            {
                "format": "metaverify-comparison",
                "version": 1,
                "metaverify": version("metaverify"),
                "log": {
                    "fingerprint": self.fingerprint,
                    "queries": self.queries,
                    "rows": self.rows,
                    "groups": self.groups,
                    "context": self.context,
                    "tiers": [asdict(tier) for tier in self.tiers],
                },
                "inspection": self.inspection.to_json(),
                "folds": self.folds,
                "repeats": self.repeats,
                "seed": self.seed,
                "level": self.level,
                "resamples": self.resamples,
                "budgets": self.budgets,
                "cost_range": self.cost_range,
                "hull": [asdict(point) for point in self.hull],
                "oracle": {"cost": self.oracle.cost, "quality": self.oracle.quality},
                "methods": methods,
                "failed": [{"name": name, "error": error} for name, error in self.failed.items()],
                "differences": asdict(self.differences),
                "calibration": [asdict(each) for each in self.calibration],
            }
        )


def _nine(value: Any) -> Any:
    """Numbers to nine significant digits, tuples as lists; what differs between machines beyond that is rounding."""
    if isinstance(value, Mapping):
        return {str(key): _nine(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nine(item) for item in value]
    return float(f"{value:.9g}") + 0.0 if isinstance(value, float) else value
