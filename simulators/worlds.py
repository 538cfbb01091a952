"""Worlds whose truth is known: synthetic cascades to draw logs from and to compute exact answers for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metaverify.simulators.log import LoggedReading, LoggedTier, ReplayLog

__all__ = [
    "MAX_CELLS",
    "WORLDS",
    "Emission",
    "Joint",
    "World",
    "WorldMaker",
    "hopeless",
    "independent",
    "joint",
    "polled",
    "shared_difficulty",
    "tier_cost",
    "tier_quality",
    "token_prices",
    "useless_verifier",
]

Floats = NDArray[np.float64]

MAX_CELLS = 50_000_000
"""The largest joint that is computed: cells of one of its arrays."""

PRICE_STEP = 4.0  # each tier's price over that of the tier below
TOLERANCE = 1e-9  # of a sum of probabilities


@dataclass(frozen=True, slots=True, eq=False)
class Emission:
    """One verifier: how likely it shows each confidence, given the hidden class and whether the answer is right."""

    name: str
    levels: Floats  # [L], distinct, in [0, 1]
    chance: Floats  # [Z, 2, L], P(level | z, wrong or right)
    price: float = 0.0  # of reading it once; zero where it comes with the answer
    votes: int = 0  # where the levels are shares of so many votes

    def __post_init__(self) -> None:
        if self.levels.ndim != 1 or not np.all((self.levels >= 0.0) & (self.levels <= 1.0)):
            raise ValueError(f"reading {self.name!r}: levels are confidences in [0, 1], not {self.levels}")
        if len(np.unique(self.levels)) != len(self.levels):
            raise ValueError(f"reading {self.name!r}: levels must be distinct, not {self.levels}")
        if self.chance.ndim != 3 or self.chance.shape[1:] != (2, len(self.levels)):
            raise ValueError(
                f"reading {self.name!r}: chance has shape [Z, 2, {len(self.levels)}], not {self.chance.shape}"
            )
        _check_distribution(f"reading {self.name!r}: chance", self.chance)
        if not 0.0 <= self.price < math.inf:
            raise ValueError(f"reading {self.name!r}: price is {self.price}; it must be finite and not negative")
        if self.votes and not np.array_equal(self.levels, np.arange(self.votes + 1) / self.votes):
            raise ValueError(f"reading {self.name!r}: levels are not the shares of {self.votes} votes: {self.levels}")


def polled(name: str, yes: Floats, votes: int, price: float = 0.0) -> Emission:
    """The share of ``votes`` independent votes, each of them yes with chance ``yes`` [Z, 2] given the hidden class and
    whether the answer is right; ``price`` is that of all of them.

    Example:
        >>> polled("self_verify", np.array([[0.5, 1.0]]), 2).chance.tolist()
        [[[0.25, 0.5, 0.25], [0.0, 0.0, 1.0]]]
    """
    count = np.arange(votes + 1)
    orders = np.array([math.comb(votes, int(c)) for c in count])
    chance = orders * yes[..., None] ** count * (1.0 - yes[..., None]) ** (votes - count)
    return Emission(name, count / votes, chance, price, votes)


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """A cascade as a finite mixture over Z hidden classes.

    Given the class everything is independent, except that a reading depends on whether its own answer is right.
    ``spread`` is the standard deviation of a logged price over its mean given the class: prices are gamma
    distributed, or exactly their mean where it is 0.  ``missing`` is the share of readings that go missing,
    completely at random and bought all the same.  Tiers stand in order of mean price.

    Raises:
        ValueError: shapes that do not fit, or numbers that are not probabilities or prices.
    """

    tiers: tuple[str, ...]  # N names
    prior: Floats  # [Z]
    success: Floats  # [Z, N], P(correct | z)
    price: Floats  # [Z, N], E[price | z]
    readings: tuple[tuple[Emission, ...], ...]  # a tier, a reading
    spread: float = 0.0
    missing: float = 0.0

    def __post_init__(self) -> None:
        classes, count = len(self.prior), len(self.tiers)
        if len(set(self.tiers)) != count or count == 0:
            raise ValueError(f"tiers need distinct names, at least one: {self.tiers}")
        if self.prior.ndim != 1:
            raise ValueError(f"prior has shape [Z], not {self.prior.shape}")
        _check_distribution("prior", self.prior)
        for name, array in (("success", self.success), ("price", self.price)):
            if array.shape != (classes, count):
                raise ValueError(f"{name} has shape [Z, N] = [{classes}, {count}], not {array.shape}")
        if not np.all((self.success >= 0.0) & (self.success <= 1.0)):
            raise ValueError("success holds a number outside [0, 1]")
        if not np.all((self.price >= 0.0) & (self.price < math.inf)):
            raise ValueError("price holds a number that is negative or not finite")
        if np.any(np.diff(self.prior @ self.price) < 0.0):
            raise ValueError(f"tiers stand in order of mean price; theirs are {self.prior @ self.price}")
        if not 0.0 <= self.spread < math.inf:
            raise ValueError(f"spread is {self.spread}; it must be finite and not negative")
        if not 0.0 <= self.missing < 1.0:
            raise ValueError(f"missing is {self.missing}, outside [0, 1)")
        _check_readings(self.tiers, self.readings, classes)

    def draw(self, n: int, seed: int | Sequence[int], *, per_group: int = 1, first: int = 1) -> ReplayLog:
        """A log of ``n`` queries; the same seed draws the same log, whose ids count from ``first``.

        Queries in groups of ``per_group`` share their hidden class, as a prompt does that is asked several times.

        As in every log, tiers stand in order of their mean logged cost, which can differ from the world's order
        where two tiers' prices are close and ``spread`` is not 0.
        """
        rng = np.random.default_rng(seed)
        group = np.arange(n) // per_group
        z = _pick(self.prior[None, :], np.zeros(-(-n // per_group), dtype=np.int64), rng)[group]
        tiers = [self._draw_tier(k, z, rng) for k in range(len(self.tiers))]
        ids = np.array([f"q{i:06d}" for i in range(first, first + n)], dtype=object)
        return ReplayLog(
            query_ids=ids,
            tiers=tuple(sorted(tiers, key=lambda tier: float(tier.cost.sum()))),
            weights=np.ones(n),
            group_ids=ids if per_group == 1 else ids[group * per_group],
        )

    def _draw_tier(self, k: int, z: NDArray[np.int64], rng: np.random.Generator) -> LoggedTier:
        correct = (rng.random(len(z)) < self.success[z, k]).astype(np.int64)
        cost = self.price[z, k]
        if self.spread > 0.0:
            cost = cost * rng.gamma(self.spread**-2, self.spread**2, len(z))
        return LoggedTier(
            name=self.tiers[k],
            correct=correct.astype(np.float64),
            cost=cost,
            readings=tuple(self._draw_reading(e, z, correct, rng) for e in self.readings[k]),
        )

    def _draw_reading(
        self, emission: Emission, z: NDArray[np.int64], correct: NDArray[np.int64], rng: np.random.Generator
    ) -> LoggedReading:
        chance = emission.chance.reshape(-1, len(emission.levels))
        seen = emission.levels[_pick(chance, 2 * z + correct, rng)]
        confidence = np.where(rng.random(len(z)) < self.missing, np.nan, seen)
        return LoggedReading(emission.name, confidence, np.full(len(z), emission.price), votes=emission.votes)


def _check_distribution(name: str, chance: Floats) -> None:
    if not np.all(chance >= 0.0) or not np.allclose(chance.sum(axis=-1), 1.0, rtol=0.0, atol=TOLERANCE):
        raise ValueError(f"{name} holds something that is not a distribution: negative, or it does not sum to 1")


def _check_readings(tiers: tuple[str, ...], readings: tuple[tuple[Emission, ...], ...], classes: int) -> None:
    if len(readings) != len(tiers):
        raise ValueError(f"readings needs one tuple a tier, {len(tiers)}, not {len(readings)}")
    for tier, emissions in zip(tiers, readings, strict=True):
        if len({e.name for e in emissions}) != len(emissions):
            raise ValueError(f"tier {tier!r} has two readings of one name: {[e.name for e in emissions]}")
        for e in emissions:
            if len(e.chance) != classes:
                raise ValueError(f"tier {tier!r}, reading {e.name!r}: {len(e.chance)} classes, the prior has {classes}")


def _pick(chance: Floats, state: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One of L indices for each of the states [n], drawn with the chances of that state, a row of ``chance`` [S, L]."""
    drawn = rng.random(len(state))
    found = np.empty(len(state), dtype=np.int64)
    for at, below in enumerate(chance.cumsum(axis=1)[:, :-1]):
        rows = np.flatnonzero(state == at)
        found[rows] = np.searchsorted(below, drawn[rows], side="right")
    return found


# What is true of a world ------------------------------------------------------------------------------------------


def tier_quality(world: World) -> Floats:
    """P(correct) of each tier, [N]: what always calling it earns."""
    return np.asarray(world.prior @ world.success)


def tier_cost(world: World) -> Floats:
    """Mean price of each tier's answer, [N], no reading bought."""
    return np.asarray(world.prior @ world.price)


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """Expectations over every combination o of readings.

    The axes after the first of ``quality`` and ``price``, and all axes of ``mass``, are the readings: tier 0's
    first, tier 0's second, …, tier 1's first, …; an axis has the levels in the order of its ``Emission``, then
    "missing" where the world has missing readings.
    """

    mass: Floats  # [*readings], P(o)
    quality: Floats  # [N, *readings], E[correct · 1{o}]
    price: Floats  # [N, *readings], E[price · 1{o}]


def joint(world: World) -> Joint:
    """The exact joint of a world, summed over its hidden classes.

    Raises:
        ValueError: an array of it would have more than ``MAX_CELLS`` cells.
    """
    shape = [len(e.levels) + (world.missing > 0.0) for emissions in world.readings for e in emissions]
    if (cells := math.prod(shape)) > MAX_CELLS:
        raise ValueError(
            f"the joint of these readings has {cells:.3g} cells, above {MAX_CELLS:.3g}; "
            "take fewer tiers, readings or levels"
        )
    everything = [_tier_joint(world, k, wrong=1.0) for k in range(len(world.tiers))]  # each [Z, tier's outcomes]
    right = [_tier_joint(world, k, wrong=0.0) for k in range(len(world.tiers))]

    def mixed(weight: Floats, parts: Sequence[Floats]) -> Floats:  # Σ_z weight_z · Π_k parts_k[z]
        half = len(parts) // 2
        low = _outer([weight[:, None], *parts[:half]])
        return np.asarray((low.T @ _outer(parts[half:])).reshape(shape))

    tiers = range(len(world.tiers))
    return Joint(
        mass=mixed(world.prior, everything),
        quality=np.stack([mixed(world.prior, [*everything[:k], right[k], *everything[k + 1 :]]) for k in tiers]),
        price=np.stack([mixed(world.prior * world.price[:, k], everything) for k in tiers]),
    )


def _tier_joint(world: World, k: int, *, wrong: float) -> Floats:
    """P(tier k's readings, right | z) + wrong · P(its readings, wrong | z), [Z, combinations]."""
    chance = np.stack([wrong * (1.0 - world.success[:, k]), world.success[:, k]], axis=1)  # [Z, 2]
    parts = [_with_missing(e.chance, world.missing) for e in world.readings[k]]
    return np.asarray(sum(_outer([chance[:, c, None], *(part[:, c] for part in parts)]) for c in (0, 1)))


def _with_missing(chance: Floats, missing: float) -> Floats:
    if missing == 0.0:
        return chance
    return np.concatenate([(1.0 - missing) * chance, np.full((*chance.shape[:-1], 1), missing)], axis=-1)


def _outer(parts: Sequence[Floats]) -> Floats:
    """Products of every combination of columns, row by row, the last part fastest: [Z, a], [Z, b] to [Z, a · b]."""
    product = parts[0]
    for part in parts[1:]:
        product = (product[:, :, None] * part[:, None, :]).reshape(len(part), -1)
    return product


# Worlds by name ---------------------------------------------------------------------------------------------------


class WorldMaker(Protocol):
    """Makes a world of 2 to 5 tiers, each of whose readings has ``levels`` levels.

    ``reading_prices`` has one entry a reading, its price as a share of its tier's: by default a tier has one
    reading, which comes with the answer.
    """

    def __call__(
        self, tiers: int = 3, levels: int = 8, *, reading_prices: Sequence[float] = (0.0,), missing: float = 0.0
    ) -> World:
        """The world."""


def shared_difficulty(
    tiers: int = 3, levels: int = 8, *, reading_prices: Sequence[float] = (0.0,), missing: float = 0.0
) -> World:
    """Queries differ in a normal difficulty that every tier feels; dearer tiers are better, readings inform.

    The difficulty stands on the 11 nodes of a Gauss-Hermite rule.  A tier is right with the logistic chance of
    1.8 · (ability - difficulty); abilities are evenly spaced over [-0.2, 1.6].
    """
    difficulty, prior, success = _difficulty(tiers)
    centre = np.stack([-0.8 - 0.6 * difficulty, 1.2 - 0.6 * difficulty], axis=1)
    return _world(prior, success, centre, levels, reading_prices, missing)


def useless_verifier(
    tiers: int = 3, levels: int = 8, *, reading_prices: Sequence[float] = (0.0,), missing: float = 0.0
) -> World:
    """As ``shared_difficulty``, but a reading says nothing: nothing can beat mixing fixed tiers."""
    _, prior, success = _difficulty(tiers)
    return _world(prior, success, np.zeros((len(prior), 2)), levels, reading_prices, missing)


def hopeless(
    tiers: int = 3, levels: int = 8, *, reading_prices: Sequence[float] = (0.0,), missing: float = 0.0
) -> World:
    """Confidence is not monotone in what a better tier would gain.

    Four classes: *easy*; *hard*, where dearer tiers are better and confidence is middling; *hopeless*, where no
    tier is ever right and confidence is low; *trap*, where all but the best tier are wrong and most confident.
    """
    prior = np.array([0.45, 0.25, 0.2, 0.1])
    best = np.arange(tiers) == tiers - 1
    success = np.stack(
        [np.linspace(0.92, 0.98, tiers), np.linspace(0.2, 0.9, tiers), np.zeros(tiers), np.where(best, 0.9, 0.02)]
    )
    centre = np.array([1.2, -0.2, -2.8, 3.2])[:, None] + np.array([-0.3, 0.3])
    return _world(prior, success, centre, levels, reading_prices, missing, noise=0.5)


def independent(
    tiers: int = 3, levels: int = 8, *, reading_prices: Sequence[float] = (0.0,), missing: float = 0.0
) -> World:
    """One class only: a tier's readings say something of its own answer and nothing of any other tier's."""
    success = np.linspace(0.55, 0.9, tiers)[None, :]
    return _world(np.ones(1), success, np.array([[-1.0, 1.0]]), levels, reading_prices, missing)


def token_prices(
    tiers: int = 3, levels: int = 8, *, reading_prices: Sequence[float] = (0.0,), missing: float = 0.0
) -> World:
    """As ``shared_difficulty``, with hard queries dear: log price rises by 0.5 a unit of difficulty, and the logged
    price varies by half its mean around that."""
    plain = shared_difficulty(tiers, levels, reading_prices=reading_prices, missing=missing)
    difficulty, _, _ = _difficulty(tiers)
    return replace(plain, price=plain.price * np.exp(0.5 * difficulty[:, None]), spread=0.5)


WORLDS: Mapping[str, WorldMaker] = MappingProxyType(
    {
        "shared_difficulty": shared_difficulty,
        "hopeless": hopeless,
        "independent": independent,
        "useless_verifier": useless_verifier,
        "token_prices": token_prices,
    }
)
"""Every world by name."""


def _world(
    prior: Floats,
    success: Floats,
    centre: Floats,
    levels: int,
    reading_prices: Sequence[float],
    missing: float,
    noise: float = 1.0,
) -> World:
    """Tiers ``tier1``, ``tier2``, … at constant prices 1, 4, 16, …, each with readings ``conf``, ``conf2``, …:
    logistic noise around ``centre`` [Z, 2], binned."""
    count = success.shape[1]
    if not 2 <= count <= 5:
        raise ValueError(f"tiers is {count}; a named world has 2 to 5")
    if levels < 2:
        raise ValueError(f"levels is {levels}; a reading has at least 2")
    price = PRICE_STEP ** np.arange(count)
    values = (np.arange(levels) + 0.5) / levels
    chance = _binned(centre, levels, noise)
    return World(
        tiers=tuple(f"tier{k + 1}" for k in range(count)),
        prior=prior,
        success=success,
        price=np.broadcast_to(price, success.shape),
        readings=tuple(
            tuple(
                Emission(f"conf{r + 1 if r else ''}", values, chance, share * float(price[k]))
                for r, share in enumerate(reading_prices)
            )
            for k in range(count)
        ),
        missing=missing,
    )


def _difficulty(tiers: int) -> tuple[Floats, Floats, Floats]:
    """A standard normal difficulty on its quadrature nodes [Z], their probabilities [Z], and ``success`` [Z, N]."""
    difficulty, weights = np.polynomial.hermite_e.hermegauss(11)
    ability = np.linspace(-0.2, 1.6, tiers)
    return difficulty, weights / weights.sum(), _logistic(1.8 * (ability - difficulty[:, None]))


def _logistic(x: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-x)))


def _binned(centre: Floats, levels: int, noise: float) -> Floats:
    """Chances [..., levels] of the levels of a logistic score around ``centre`` [...], cut evenly over [-3, 3]."""
    cuts = np.linspace(-3.0, 3.0, levels + 1)[1:-1]
    below = _logistic((cuts - centre[..., None]) / noise)
    edge = np.zeros((*centre.shape, 1))
    return np.diff(np.concatenate([edge, below, edge + 1.0], axis=-1), axis=-1)
