"""What a router did, in whole numbers, and whether the queries are still those that its policy was fitted on."""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from metaverify.policies.actions import Call, Verify
from metaverify.policies.episode import Told
from metaverify.policies.exposition import counter, gauge
from metaverify.policies.forks import renew_in_children
from metaverify.policies.graph import Unread, as_confidence, bought_first, reading_in_hand
from metaverify.policies.guards import Prices, dearest_prices
from metaverify.policies.policy import Policy
from metaverify.policies.routed import RESERVED, UNBOUGHT, Routed, Step
from metaverify.policies.store import Snapshot
from metaverify.policies.tiers import Reading, Tier

__all__ = ["Drift", "Monitor", "chi_square", "chi_square_quantile", "cusum_limit", "trend", "unconditional_readings"]

WINDOW = 600
"""Readings that are compared with the file's."""

BLOCK = 50
"""Readings after which they are compared again."""

GROUPS = 4
"""Neighbouring bins are joined until there are so many: more hide a shift in the noise of all the others."""

SHIFT = 0.25
"""The least rise of the mean cost that must be found; half of it is borne for ever."""

READING_ALARMS, COST_ALARMS = 0.01, 0.001
"""The chance that a reading or a price, or the cost, looks changed in `HEALTHY` requests in which nothing changed.
Costs have a longer tail than the normal noise that the limit is made for, and a mean that is not known exactly: for
them it is some .005."""

HEALTHY = 10_000

TESTS = HEALTHY / BLOCK / 2
"""Windows overlap: their greatest statistic exceeds what as many independent ones exceed (simulated, 3 to 8 groups)."""

Purchase = tuple[str, str | None]
"""(tier, reading), None for an answer."""

Counts = Counter[tuple[str, str]]
"""(kind, name) -> how often, costs in billionths."""

PAID = frozenset({"", "invalid"})
"""The reasons of purchases that the policy asked for, and of which something came."""

REASONS = 50
"""Reasons of callers that are counted apart; of more, each would be a time series of its own for ever."""

PATIENCE = 50
"""Requests one after the other that follow another store's policy, after which that is the one in use."""

NANO = 10**9  # costs are counted in billionths
SCALE = 1024  # and compared in 1024ths of what a request is expected to cost
LARGEST = 2**40  # of such parts: no single request is beyond reckoning, whatever its cost is said to be
RUN_IN = 50  # requests before the spread of costs is trusted, where the file does not say what it is


@dataclass(frozen=True, slots=True)
class Drift:
    """Something that is not as it was in the log: time to recalibrate.

    ``statistic`` exceeded ``limit`` after so many ``requests`` with the policy ``policy``.
    """

    kind: str  # "reading", "price" or "cost"
    name: str
    statistic: float
    limit: float
    requests: int
    policy: str

    def __str__(self) -> str:
        what = "the mean of" if self.kind == "cost" else "the histogram of"
        return (
            f"{what} {self.name} is no longer that of the log ({self.statistic:.1f} > {self.limit:.1f} after "
            f"{self.requests} requests): fit again on newer queries"
        )


class Monitor:
    """Counts what a router does, and says when its policy should be fitted again.

    The histogram of a reading is compared with the one in the policy's file, that of all queries; so only readings
    that every request has, whatever came before, are compared: what only doubted queries are asked is a selection.
    The cost of requests goes into a one-sided CUSUM.  What each purchase costs says much sooner that a price rose,
    because it does not vary with what requests ask for: what was paid above the file's prices for what always cost the
    same in the log goes into a CUSUM too, and other prices, of what every request buys, are compared as readings are.
    All begin anew with a new policy; an alarm stays until then.  One policy is watched at a time, so give each router a
    monitor of its own; requests that follow another policy are counted as ``unwatched``.
    What is done in an outage that the policy was solved for is counted, and is no drift.
    """

    def __init__(self) -> None:
        self._counts: Counts = Counter()
        self._reasons: set[str] = set()
        self._watch: _Watch | None = None
        self._elsewhere = 0
        self._renew()
        renew_in_children(self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may ask amid a request

    def record(self, routed: Routed) -> None:
        """Count a request that came to its end.  It never raises: the request has its answer."""
        with self._lock:
            try:
                self._record(routed)
            except Exception:
                self._counts["unrecorded", ""] += 1

    def _record(self, routed: Routed) -> None:
        watch, snapshot = self._watch, routed.snapshot
        other = watch is not None and snapshot.id != watch.snapshot.id
        self._elsewhere = self._elsewhere + 1 if other else 0
        replaced = watch is not None and snapshot.number == watch.snapshot.number and self._elsewhere > PATIENCE
        if watch is None or snapshot.number > watch.snapshot.number or replaced:
            watch, self._elsewhere = self._watching(snapshot), 0
            self._watch = watch
        self._count(routed)
        if snapshot.id == watch.snapshot.id:
            watch.record(routed)
        else:
            self._counts["unwatched", ""] += 1

    def _watching(self, snapshot: Snapshot) -> _Watch:
        return _Watch(snapshot)

    def _count(self, routed: Routed) -> None:
        counts = self._counts
        counts["requests", ""] += 1
        counts["cost", ""] += round(routed.cost * NANO)
        counts["accepts" if routed.tier is not None else "handed over", routed.tier or ""] += 1
        for step in routed.steps:
            match step.action:
                case Call(tier) if step.reason not in UNBOUGHT:
                    counts["calls", tier] += 1
                case Verify(tier, _) if step.reason not in UNBOUGHT:
                    counts["reads", tier] += 1
            if step.reason:
                counts["reasons", self._named(step.reason)] += 1
        if routed.without:
            counts["outages", "+".join(routed.without)] += 1

    def _named(self, reason: str) -> str:
        """The reason under which this one is counted: "other" where there are too many."""
        if reason in RESERVED or reason in self._reasons:
            return reason
        if len(self._reasons) >= REASONS:
            return "other"
        self._reasons.add(reason)
        return reason

    @property
    def recalibrate(self) -> tuple[Drift, ...]:
        """What has drifted under the policy in use; nothing while all is as it was."""
        with self._lock:
            return () if self._watch is None else tuple(self._watch.found.values())

    def report(self) -> dict[str, Any]:
        """Everything that was counted, as plain JSON.

        ``calls`` and ``accepts`` are counts by tier, ``outages`` by the tiers without which a request was decided,
        ``expected`` the shares of requests that cross-fitting found to
        call each tier, for the operating point; ``readings`` are histograms over the bins of the file, missing last.
        """
        with self._lock:
            counts, watch = Counter(self._counts), self._watch
            report = totals(counts)
            if watch is not None:
                report |= {
                    "policy": watch.snapshot.id,
                    "expected": _expected_calls(watch.snapshot.policy),
                    "readings": {f"{tier}.{name}": list(h.counts) for (tier, name), h in watch.readings.items()},
                    "recalibrate": [asdict(drift) | {"message": str(drift)} for drift in watch.found.values()],
                }
            return report

    def prometheus(self) -> str:
        """The counters in Prometheus' text format."""
        with self._lock:
            counts = Counter(self._counts)
            found = {} if self._watch is None else dict(self._watch.found)
        recalibrate = gauge("recalibrate", "Readings and costs that are no longer those of the log.", len(found))
        return families(counts) + recalibrate


_FAMILIES = (
    ("requests_total", "requests", "", "Requests that came to their end."),
    ("cost_total", "cost", "", "What they cost."),
    ("handed_over_total", "handed over", "", "Requests without an answer."),
    ("calls_total", "calls", "tier", "Calls of a tier."),
    ("reads_total", "reads", "tier", "Readings of a tier that were bought."),
    ("accepts_total", "accepts", "tier", "Answers of a tier that were returned."),
    ("unplanned_steps_total", "reasons", "reason", "Steps that went otherwise than planned."),
    ("outages_total", "outages", "without", "Requests that were decided as is best without tiers that were down."),
    ("unrecorded_total", "unrecorded", "", "Requests that could not be counted."),
    ("unwatched_total", "unwatched", "", "Requests of another policy than the one that is watched for drift."),
)


def totals(counts: Counts) -> dict[str, Any]:
    """What was counted, as plain JSON."""
    return {
        "requests": counts["requests", ""],
        "cost": counts["cost", ""] / NANO,
        "handed_over": counts["handed over", ""],
        "unrecorded": counts["unrecorded", ""],
        "unwatched": counts["unwatched", ""],
        **{kind: of_kind(counts, kind) for kind in ("calls", "reads", "accepts", "reasons", "outages")},
    }


def families(counts: Counts, prefix: str = "") -> str:
    """What was counted, in Prometheus' text format."""
    text = ""
    for name, kind, label, told in _FAMILIES:
        total = counts[kind, ""] / NANO if kind == "cost" else counts[kind, ""]
        text += counter(prefix + name, told, of_kind(counts, kind) if label else total, label)
    return text


def of_kind(counts: Counts, kind: str) -> dict[str, int]:
    """How often each name of a kind was counted, in order of names."""
    return {name: count for (of, name), count in sorted(counts.items()) if of == kind}


def _expected_calls(policy: Policy) -> dict[str, float]:
    """The share of requests that calls each tier at the operating point, where cross-fitting found one."""
    point = policy.point
    low, high = (policy.vertices[at].evidence for at in (point.low, point.high))
    if low is None or high is None:
        return {}
    shares = zip(policy.tiers, low.calls, high.calls, strict=True)
    return {t.name: (1 - point.share) * a + point.share * b for t, a, b in shares if a is not None and b is not None}


def _filed_spread(policy: Policy) -> float | None:
    """The standard deviation of what a request costs about what its vertex does, at the operating point; None where
    the file does not say."""
    point = policy.point
    variance = 0.0
    for share, at in ((1.0 - point.share, point.low), (point.share, point.high)):
        found = policy.vertices[at].evidence
        if share > 0.0:
            if found is None or found.cost_sd is None:
                return None
            variance += share * found.cost_sd**2
    return math.sqrt(variance)


class _Watch:
    """The comparison with one policy's file."""

    def __init__(self, snapshot: Snapshot) -> None:
        policy = snapshot.policy
        self.snapshot = snapshot
        self.found: dict[str, Drift] = {}
        self.requests = 0
        self.tiers = {tier.name: tier for tier in policy.tiers}
        self.certain: dict[int, frozenset[tuple[str, str]]] = {}
        self.always: dict[int, frozenset[Purchase]] = {}
        point = policy.point
        self.varying = _varying_prices(policy)
        watched = self.at(point.low) | self.at(point.high)
        priced = self.bought(point.low) | self.bought(point.high)
        self.chance = READING_ALARMS / max(len(watched) + len(priced), 1) / TESTS / 2  # of each of two statistics
        self.readings: dict[tuple[str, str], _Histogram] = {}
        self.cost = _CostSum(policy.expected_cost, _filed_spread(policy))
        self.steady = _steady_prices(policy)
        self.price = _CostSum(policy.expected_cost)

    def at(self, vertex: int) -> frozenset[tuple[str, str]]:
        """The readings that every request of this vertex has."""
        if vertex not in self.certain:
            self.certain[vertex] = unconditional_readings(self.snapshot.policy, vertex)
        return self.certain[vertex]

    def bought(self, vertex: int) -> frozenset[Purchase]:
        """What every request of this vertex buys at a price of which the file has a histogram."""
        if vertex not in self.always:
            self.always[vertex] = _of_all_roots(self.snapshot.policy, vertex) & self.varying.keys()
        return self.always[vertex]

    def histograms(self) -> Iterator[tuple[str, str, _Histogram]]:
        """Kind, name and histogram of all that is compared."""
        for (tier, reading), histogram in self.readings.items():
            yield "reading", _reading_of(tier, reading), histogram
        for bought, histogram in self.varying.items():
            yield "price", _price_of(bought), histogram

    def record(self, routed: Routed) -> None:
        self.requests += 1
        told: dict[str, dict[str, Told]] = {}
        for step in routed.steps:
            if isinstance(step.action, Call | Verify) and step.reason not in UNBOUGHT and not step.without:
                given = told.setdefault(step.action.tier, {})
                given |= step.readings
                if isinstance(step.action, Verify) and not step.readings:
                    given[step.action.reading] = None  # it failed
        for tier, name in self.at(routed.vertex):
            if tier in told:
                self._read(tier, name, told[tier])
        always = self.bought(routed.vertex)
        for step in routed.steps:
            bought = _purchase(step)
            if bought in always and step.told and step.reason in PAID and not step.without:
                self._compare("price", _price_of(bought), self.varying[bought], step.cost)
        if not routed.without and not {"cap", "budget", "cancelled"} & set(routed.reasons):
            explored = sum(step.cost for step in routed.steps if step.reason == "explored")
            expected = self.snapshot.policy.vertices[routed.vertex].cost
            self._pay("the cost of a request", self.cost, routed.cost - explored, expected)
            self._pay("what is bought at fixed prices", self.price, sum(map(self._above, routed.steps)), 0.0)

    def _above(self, step: Step) -> float:
        """What a step cost above the price in the file, where that was the same for every query of the log."""
        if not isinstance(step.action, Call | Verify) or step.reason not in PAID:
            return 0.0
        action = step.action
        name = action.tier if isinstance(action, Call) else (action.tier, action.reading)
        return step.cost - self.steady.get(name, step.cost)

    def _read(self, tier: str, name: str, told: Mapping[str, Told]) -> None:
        reading = next(reading for reading in self.tiers[tier].readings if reading.name == name)
        value = _value(self.tiers[tier], reading, told)
        if value is None:
            return
        histogram = self.readings.setdefault((tier, name), _Histogram(reading.cuts, reading.counts))
        self._compare("reading", _reading_of(tier, name), histogram, value if 0.0 <= value <= 1.0 else math.nan)

    def _compare(self, kind: str, name: str, histogram: _Histogram, value: float) -> None:
        self.judge(kind, name, histogram.add(value))

    def judge(self, kind: str, name: str, statistics: Iterable[tuple[float, int]]) -> None:
        """Raise the alarm where one of them exceeds what it does by chance."""
        for statistic, freedom in statistics:
            limit = chi_square_quantile(self.chance, freedom) if freedom else math.inf
            if statistic > limit:
                self._find(kind, name, statistic, limit)

    def _pay(self, name: str, costs: _CostSum, cost: float, expected: float) -> None:
        statistic, limit = costs.add(cost, expected)
        if statistic > limit:
            self._find("cost", name, statistic, limit)

    def _find(self, kind: str, name: str, statistic: float, limit: float) -> None:
        self.found.setdefault(name, Drift(kind, name, statistic, limit, self.requests, self.snapshot.id))


def _steady_prices(policy: Policy) -> Prices:
    """What is bought for the price that it had for every query of the log; nothing where the file does not say."""
    try:
        varying = {(tier, reading) for tier, reading, _ in policy.provenance["dearest"]}
    except (KeyError, TypeError, ValueError):
        return {}
    prices = dearest_prices(policy).items()
    return {name: price for name, price in prices if (name if isinstance(name, tuple) else (name, None)) not in varying}


def _varying_prices(policy: Policy) -> dict[Purchase, _Histogram]:
    """The histograms of what did not always cost the same in the log, where the file has them."""
    try:
        told = [(tier, name, [*map(float, cuts)], counts) for tier, name, cuts, counts in policy.provenance["prices"]]
        return {
            (tier, name): _Histogram(cuts, [*counts, 0])
            for tier, name, cuts, counts in told
            if len(counts) == len(cuts) + 1 and cuts == sorted(cuts) and all(type(n) is int and n >= 0 for n in counts)
        }
    except (KeyError, TypeError, ValueError):
        return {}


def _purchase(step: Step) -> Purchase | None:
    match step.action:
        case Call(tier):
            return tier, None
        case Verify(tier, reading):
            return tier, reading
        case _:
            return None


def _reading_of(tier: str, reading: str) -> str:
    return f"{reading} of {tier}"


def _price_of(bought: Purchase) -> str:
    tier, reading = bought
    return f"the price of {tier}" if reading is None else f"the price of {reading} of {tier}"


def _value(tier: Tier, reading: Reading, told: Mapping[str, Told]) -> float | None:
    """A reading as the file's histogram counts it, NaN where it is missing; None where there is none."""
    given = reading_in_hand(tier, reading.name, told)
    if isinstance(given, Unread):
        return None
    if isinstance(given, tuple | list):
        yes, asked = given
        return yes / asked if asked >= max(reading.votes, 1) else None
    return as_confidence(given, tier.name, reading.name)


def unconditional_readings(policy: Policy, vertex: int) -> frozenset[tuple[str, str]]:
    """(tier, reading) of what is read of every request that follows this vertex, before anything depends on it."""
    bought = _of_all_roots(policy, vertex)
    calls = [tier for tier in policy.tiers if (tier.name, None) in bought]
    free = {(tier.name, r.name) for tier in calls for r in tier.readings if r.price == 0.0 and not r.sample}
    return frozenset(free | {(name, reading) for name, reading in bought if reading is not None})


def _of_all_roots(policy: Policy, vertex: int) -> frozenset[Purchase]:
    """What every request that follows this vertex buys before anything depends on it, whatever its context."""
    of = policy.vertices[vertex]
    roots = {of.root, *of.context_roots.values()}
    return frozenset.intersection(*(bought_first(policy.nodes, root) for root in roots))


class _Histogram:
    """The last numbers of one kind, against those of the log; one that is missing (NaN) counts last."""

    def __init__(self, cuts: Sequence[float], before: Sequence[int]) -> None:
        self.cuts = cuts
        self.before = before
        self.counts = [0] * len(before)  # since the policy is in use
        self.block = [0] * len(before)
        self.blocks: deque[list[int]] = deque(maxlen=WINDOW // BLOCK)
        self.done = 0  # blocks that are full, in all
        self.groups = _groups(before)

    def add(self, value: float) -> tuple[tuple[float, int], ...]:
        """What `compare` says of the last blocks, when one is full."""
        at = -1 if math.isnan(value) else bisect_right(self.cuts, value)
        self.counts[at] += 1
        self.block[at] += 1
        if sum(self.block) < BLOCK or not any(self.before):
            return ()
        self.blocks.append(self.block)
        self.block = [0] * len(self.counts)
        self.done += 1
        return self.compare(self.blocks)

    def compare(self, blocks: Iterable[Sequence[int]]) -> tuple[tuple[float, int], ...]:
        """Statistics of these blocks and their degrees of freedom: of any change, and of a move up or down."""
        now = [sum(column) for column in zip(*blocks, strict=True)]
        return chi_square(self.before, now, self.groups), (trend(self.before[:-1], now[:-1]), 1)


def _groups(counts: Sequence[int]) -> tuple[int, ...]:
    """For each bin the group that it is joined into: neighbours, of some equal share; a missing reading is its own."""
    total, below, groups = max(sum(counts[:-1]), 1), 0, []
    for count in counts[:-1]:
        groups.append(min(int(GROUPS * (below + count / 2) / total), GROUPS - 1))
        below += count
    return (*groups, GROUPS)


def chi_square(before: Sequence[int], now: Sequence[int], groups: Sequence[int]) -> tuple[float, int]:
    """Pearson's statistic that two histograms are of one kind, and its degrees of freedom.

    Args:
        before: counts by bin.
        now: the same of the other.
        groups: the group that each bin is joined into.

    The statistic is Σ (now/m − before/n)² / (p · (1/n + 1/m)), with p the pooled share of a group.  Groups of which
    fewer than five are expected are joined with the first.

    Example:
        >>> statistic, freedom = chi_square([50, 50], [20, 5], [0, 1])
        >>> round(statistic, 3), freedom
        (7.305, 1)
    """
    n, m = sum(before), sum(now)
    joined: dict[int, list[int]] = {}
    for group, a, b in zip(groups, before, now, strict=True):
        pair = joined.setdefault(group, [0, 0])
        pair[0] += a
        pair[1] += b
    small = [group for group, (a, b) in joined.items() if (a + b) * min(n, m) < 5 * (n + m)]
    if small and len(small) < len(joined):
        first = next(group for group in joined if group not in small)
        for group in small:
            a, b = joined.pop(group)
            joined[first][0] += a
            joined[first][1] += b
    statistic = sum(
        (b / m - a / n) ** 2 / ((a + b) / (n + m) * (1 / n + 1 / m)) for a, b in joined.values() if a + b > 0
    )
    return statistic, len(joined) - 1


def trend(before: Sequence[int], now: Sequence[int]) -> float:
    """The part of Pearson's statistic, with one degree of freedom, that one histogram lies above the other.

    Cochran's and Armitage's test with mid-ranks for scores, the two-sample rank test of tied values; it finds a small
    bias of all readings long before the whole statistic does.

    Example:
        >>> round(trend([50, 50], [20, 5]), 3)  # of two bins there is no other part
        7.305
    """
    n, m = sum(before), sum(now)
    if not n or not m:
        return 0.0
    both = [a + b for a, b in zip(before, now, strict=True)]
    ranks, below = [], 0
    for count in both:
        ranks.append(below + count / 2)
        below += count
    mean = sum(rank * count for rank, count in zip(ranks, both, strict=True)) / (n + m)
    variance = sum((rank - mean) ** 2 * count for rank, count in zip(ranks, both, strict=True)) / (n + m)
    moved = sum(rank * (b / m - a / n) for rank, a, b in zip(ranks, before, now, strict=True))
    return moved**2 / (variance * (1 / n + 1 / m)) if variance else 0.0


def chi_square_quantile(chance: float, freedom: int) -> float:
    """What χ² of so many degrees of freedom exceeds with this chance (Wilson and Hilferty, 1931; exact for one).

    Example:
        >>> round(chi_square_quantile(0.01, 3), 1)
        11.4
    """
    if freedom == 1:
        return NormalDist().inv_cdf(chance / 2) ** 2
    spread = 2.0 / (9.0 * freedom)
    return freedom * (1.0 - spread - NormalDist().inv_cdf(chance) * math.sqrt(spread)) ** 3


class _CostSum:
    """A one-sided CUSUM of what requests cost, in 1024ths of what one is expected to cost.

    Its limit follows from ``spread``, the standard deviation that the file has, and so is known before the first
    request; where it has none, from the requests themselves, once there are enough.
    """

    def __init__(self, expected: float, spread: float | None = None) -> None:
        self.unit = (expected or 1.0) / SCALE
        self.slack = round(SCALE * SHIFT / 2)
        self.limit = None if spread is None else self._limit(spread / self.unit)
        self.height = self.count = self.total = self.squares = 0

    def add(self, cost: float, expected: float) -> tuple[float, float]:
        """The height and the limit; no height while too few requests are known."""
        excess = round(max(min((cost - expected) / self.unit, LARGEST), -LARGEST))
        self.count += 1
        self.total += excess
        self.squares += excess * excess
        self.height = max(self.height + excess - self.slack, 0)
        limit = self.limit
        if limit is None:
            if self.count < RUN_IN or self.height == 0:
                return 0.0, math.inf
            limit = self._limit(math.sqrt(max(self.squares / self.count - (self.total / self.count) ** 2, 0.0)))
        return self.height / SCALE, limit / SCALE

    def _limit(self, spread: float) -> float:
        spread = max(spread, self.slack / 2)
        return spread * cusum_limit(self.slack / spread, HEALTHY / COST_ALARMS)


def cusum_limit(slack: float, run: float) -> float:
    """The height that a CUSUM with this slack comes to once in ``run`` steps of unit normal noise.

    Siegmund's approximation (1985): run = (exp(2kb) − 2kb − 1) / (2k²), b = limit + 1.166.

    Example:
        >>> round(cusum_limit(0.5, 930), 1)  # the textbook's 5
        5.0
    """
    reach = 0.0  # 2kb
    for _ in range(60):
        reach = math.log(2.0 * slack * slack * run + reach + 1.0)
    return max(reach / (2.0 * slack) - 1.166, 0.0)
