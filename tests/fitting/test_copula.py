"""The copula model on data from a Gaussian copula drawn here, and on inputs that say little or nothing."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import expit, ndtr, ndtri
from scipy.stats import multivariate_normal

from metaverify.fitting.coding import code_log, ladders_of
from metaverify.fitting.lattice import Lattice
from metaverify.fitting.models.copula import Copula
from metaverify.fitting.table import JointTable
from metaverify.simulators.log import LoggedReading, LoggedTier, ReplayLog
from tests.strategies import random_log

LOADINGS = np.array([0.8, 0.6, -0.4])


def log_of(
    confidence: np.ndarray, correct: np.ndarray, cost: np.ndarray | None = None, weights: np.ndarray | None = None
) -> ReplayLog:
    """A log of one free reading a tier; all arrays but the weights are [tiers, n]; a row of NaN is a tier not read."""
    tiers, n = correct.shape
    cost = np.outer(4.0 ** np.arange(tiers), np.ones(n)) if cost is None else cost

    def readings(k: int) -> tuple[LoggedReading, ...]:
        return (LoggedReading("conf", confidence[k], np.zeros(n)),)

    columns = tuple(LoggedTier(f"t{k}", correct[k].astype(float), cost[k], readings(k)) for k in range(tiers))
    ids = np.array([f"q{row:06d}" for row in range(n)], dtype=object)
    return ReplayLog(ids, columns, np.ones(n) if weights is None else weights, ids)


def table_of(log: ReplayLog, bins: int = 4) -> JointTable:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Copula().table(code_log(log, ladders_of(log, bins)))


@dataclass(frozen=True)
class Drawn:
    """Normal scores [tiers, n] with one shared factor, right or wrong by them, and prices that rise with difficulty."""

    score: np.ndarray
    chance: np.ndarray
    log: ReplayLog


def drawn(n: int, seed: int) -> Drawn:
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=n)
    rest = np.sqrt(1 - LOADINGS**2)[:, None] * rng.normal(size=(3, n))
    score = LOADINGS[:, None] * shared + rest
    chance = expit(np.array([-0.3, 0.6, 1.2])[:, None] + 1.0 * score + 0.4 * score.sum(axis=0))
    cost = np.array([1.0, 4.0, 16.0])[:, None] * np.exp(-0.3 * score) * rng.gamma(4.0, 0.25, (3, n))
    correct = rng.random((3, n)) < chance
    return Drawn(score, chance, log_of(ndtr(score), correct, cost))


@pytest.fixture(scope="module")
def many() -> Drawn:
    return drawn(20_000, 0)


def box_chance(low: np.ndarray, high: np.ndarray) -> float:
    """P(low < scores < high) of the copula that the data were drawn from."""
    covariance = np.outer(LOADINGS, LOADINGS) + np.diag(1 - LOADINGS**2)
    normal = multivariate_normal(np.zeros(3), covariance, abseps=1e-7, releps=1e-7, seed=0)
    return float(normal.cdf(high, lower_limit=low))


def test_the_mass_of_a_cell_is_its_chance_under_the_copula_that_was_drawn_from(many: Drawn) -> None:
    table = table_of(many.log)
    edges = [ndtri(np.array([1e-12, *ladder.rungs[0].cuts, 1 - 1e-12])) for ladder in table.ladders]
    for cell in np.ndindex(4, 4, 4):
        low, high = (np.array([edges[k][cell[k] + step] for k in range(3)]) for step in (0, 1))
        assert table.mass[(0, *cell)] == pytest.approx(box_chance(low, high), abs=2.5e-3)
    assert table.mass[:, 4].sum() + table.mass[:, :, 4].sum() + table.mass[:, :, :, 4].sum() == pytest.approx(0.0)
    assert table.mass.sum() == pytest.approx(1.0, abs=1e-12)


def test_the_mass_fits_the_cells_of_the_log_by_chi_square(many: Drawn) -> None:
    coded = code_log(many.log, ladders_of(many.log, 4))
    seen = np.bincount(coded.cells(), minlength=coded.leaves()).reshape(5, 5, 5)[:4, :4, :4].ravel()
    expected = table_of(many.log).mass[0, :4, :4, :4].ravel() * len(coded)
    freedom = 4**3 - 1 - 3 * 3 - 3  # cells less bins' shares less loadings
    chi_square = float(((seen - expected) ** 2 / expected).sum())
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


def test_quality_is_calibrated_overall_and_cell_by_cell(many: Drawn) -> None:
    table = table_of(many.log)
    coded = code_log(many.log, ladders_of(many.log, 4))
    for k, tier in enumerate(many.log.tiers):
        assert table.quality[k].sum() == pytest.approx(tier.correct.mean(), abs=0.01)
        count = np.bincount(coded.cells(), minlength=coded.leaves())
        truth = np.bincount(coded.cells(), weights=many.chance[k], minlength=coded.leaves())
        often = count >= 200
        error = table.quality[k].ravel()[often] / table.mass.ravel()[often] - truth[often] / count[often]
        assert math.sqrt(float((error**2).mean())) < 0.03
        assert np.abs(error).max() < 0.08


def test_prices_are_reproduced_on_average_and_rise_where_queries_are_hard(many: Drawn) -> None:
    table = table_of(many.log)
    for k, tier in enumerate(many.log.tiers):
        price = table.price[k][0]
        assert price.sum() == pytest.approx(tier.cost.mean(), rel=0.02)
        assert (price >= 0.0).all()
        by_own = price.sum(axis=tuple(a for a in range(1, 4) if a != k + 1))[0]
        mass = table.mass.sum(axis=tuple(a for a in range(1, 4) if a != k + 1))[0]
        assert (np.diff(by_own[:4] / mass[:4]) < 0).all()


def test_two_readings_of_one_tier_keep_what_they_share_beyond_difficulty() -> None:
    rng = np.random.default_rng(5)
    n = 20_000
    shared, own = rng.normal(size=(2, n))
    first, second = (0.5 * shared + 0.7 * own + math.sqrt(0.26) * rng.normal(size=n) for _ in range(2))
    other = 0.7 * shared + math.sqrt(0.51) * rng.normal(size=n)
    one, two, three = (ndtr(score) for score in (first, second, other))
    correct = (rng.random((2, n)) < expit(np.stack([first + second, other]))).astype(float)
    ids = np.array([f"q{row:06d}" for row in range(n)], dtype=object)
    readings = (LoggedReading("conf", one, np.zeros(n)), LoggedReading("conf2", two, np.full(n, 0.1)))
    tiers = (
        LoggedTier("small", correct[0], np.ones(n), readings),
        LoggedTier("large", correct[1], np.full(n, 4.0), (LoggedReading("conf", three, np.zeros(n)),)),
    )
    log = ReplayLog(ids, tiers, np.ones(n), ids)
    coded = code_log(log, ladders_of(log, 4))
    mass = table_of(log).mass[0]
    seen = np.bincount(coded.cells(), minlength=coded.leaves()).reshape(mass.shape) / n
    assert np.abs(mass - seen)[:4, :4, :4].max() < 6e-3
    assert 0.5 * np.abs(mass - seen).sum() < 0.04


def test_missing_readings_have_their_share_and_say_what_they_said() -> None:
    log = random_log(6000, 2, readings=("free", "free"), missing=0.3)
    table = table_of(log)
    for k, tier in enumerate(log.tiers):
        missing = np.isnan(tier.readings[0].confidence)
        axes = tuple(a for a in range(1, 3) if a != k + 1)
        assert table.mass.sum(axis=axes)[0, -1] == pytest.approx(missing.mean(), abs=0.01)
        given = table.quality[k].sum(axis=axes)[0, -1] / table.mass.sum(axis=axes)[0, -1]
        assert given == pytest.approx(tier.correct[missing].mean(), abs=0.03)


def test_a_score_is_a_quality() -> None:
    log = random_log(4000, 3, readings=("free", ""), scored=True)
    table = table_of(log)
    for k, tier in enumerate(log.tiers):
        assert table.quality[k].sum() == pytest.approx(tier.correct.mean(), abs=0.01)
        assert (table.quality[k] >= 0.0).all()
        assert (table.quality[k] <= table.mass).all()


def test_a_weight_counts_as_so_many_rows() -> None:
    log = random_log(120, 4, readings=("free", "paid"), varying=True)
    twice = ReplayLog(log.query_ids, log.tiers, 2 * log.weights, log.group_ids)
    doubled = log.take(np.repeat(np.arange(120), 2))
    first, second = (Copula().table(code_log(at, ladders_of(log, 4))) for at in (twice, doubled))
    for left, right in zip((first.mass, *first.quality), (second.mass, *second.quality), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-9)


# Where there is little to learn from ----------------------------------------------------------------------------------

ROWS = 60
EVEN = np.linspace(0.05, 0.95, ROWS)
HALF = (np.arange(ROWS) % 2).astype(float)
LATTER = (np.arange(ROWS) >= ROWS // 2).astype(float)
LITTLE: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "all right": (np.stack([EVEN, EVEN[::-1]]), np.ones((2, ROWS))),
    "all wrong": (np.stack([EVEN, EVEN[::-1]]), np.zeros((2, ROWS))),
    "one tier always right": (np.stack([EVEN, EVEN]), np.stack([HALF, np.ones(ROWS)])),
    "a constant confidence": (np.stack([np.full(ROWS, 0.7), EVEN]), np.stack([HALF, LATTER])),
    "every confidence at the top": (np.ones((2, ROWS)), np.stack([HALF, LATTER])),
    "readings that are copies": (np.stack([EVEN, EVEN]), np.stack([LATTER, LATTER])),
    "a reading that separates": (np.stack([EVEN, EVEN]), np.stack([LATTER, HALF])),
    "readings that are opposites": (np.stack([EVEN, EVEN[::-1]]), np.stack([LATTER, 1 - LATTER])),
    "a reading always missing": (np.stack([np.full(ROWS, np.nan), EVEN]), np.stack([HALF, LATTER])),
    "everything missing": (np.full((2, ROWS), np.nan), np.stack([HALF, LATTER])),
    "one reading seen": (np.stack([np.where(np.arange(ROWS), np.nan, 0.5), EVEN]), np.stack([HALF, LATTER])),
    "one tier": (EVEN[None], LATTER[None]),
    "one tier, always right": (EVEN[None], np.ones((1, ROWS))),
    "three rows": (np.array([[0.1, 0.5, 0.9], [0.2, 0.2, np.nan]]), np.array([[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]])),
    "one row": (np.array([[0.1], [0.2]]), np.array([[0.0], [1.0]])),
    "scores": (np.stack([EVEN, EVEN]), np.stack([EVEN, np.sqrt(EVEN)])),
    "one score for all": (np.stack([EVEN, EVEN]), np.full((2, ROWS), 0.3)),
}


@pytest.mark.parametrize("varying", [False, True], ids=["constant prices", "varying prices"])
@pytest.mark.parametrize("case", LITTLE)
def test_little_data_still_makes_a_table(case: str, varying: bool) -> None:
    confidence, correct = LITTLE[case]
    n = correct.shape[1]
    cost = np.outer(4.0 ** np.arange(len(correct)), 1.0 + varying * (np.arange(n) % 3))
    log = log_of(confidence, correct, cost)
    table = table_of(log, 8)
    assert table.mass.sum() == pytest.approx(1.0, abs=1e-12)
    assert (table.mass >= 0).all()
    for k, quality in enumerate(table.quality):
        assert np.isfinite(quality).all()
        assert (quality >= 0).all()
        assert (quality <= table.mass * (1 + 1e-12)).all()
        assert quality.sum() == pytest.approx(correct[k].mean(), abs=0.02 + 1.0 / n)
    for rungs in table.price:
        assert all(np.isfinite(p).all() and np.all(p >= 0) for p in rungs)
    value = Lattice(table).solve(0.01)
    assert math.isfinite(value.quality)


def test_a_tier_that_is_never_read_has_the_quality_that_others_foretell() -> None:
    log = random_log(5000, 6, readings=("free", ""), missing=0.0)
    table = table_of(log)
    assert table.mass.shape[2] == 1
    given = table.quality[1][0, :-1, 0] / table.mass[0, :-1, 0]
    code = table.ladders[0].rungs[0].code(log.tiers[0].readings[0].confidence)
    truth = [log.tiers[1].correct[code == b].mean() for b in range(len(given))]
    assert given == pytest.approx(np.array(truth), abs=0.04)


def test_tiers_that_are_never_read_have_their_means() -> None:
    log = random_log(100, 7, readings=("", ""))
    table = table_of(log)
    assert table.mass.shape == (1, 1, 1)
    assert [q.item() for q in table.quality] == pytest.approx([tier.correct.mean() for tier in log.tiers])


def test_a_price_stays_within_its_range() -> None:
    rng = np.random.default_rng(8)
    confidence = rng.random((1, 400))
    log = log_of(confidence, confidence > 0.5, np.where(confidence > 0.9, 1000.0, 0.001))
    table = table_of(log, 10)
    mean = log.tiers[0].cost.mean()
    given = table.price[0][0][table.mass > 0] / table.mass[table.mass > 0]
    assert given.min() >= mean / 8 * (1 - 1e-9)
    assert given.max() <= mean * 8 * (1 + 1e-9)


def test_the_same_rows_give_the_same_table_to_the_last_bit() -> None:
    log = random_log(200, 9, varying=True)
    first, second = table_of(log), table_of(log)
    assert first.mass.tobytes() == second.mass.tobytes()
    assert [q.tobytes() for q in first.quality] == [q.tobytes() for q in second.quality]
