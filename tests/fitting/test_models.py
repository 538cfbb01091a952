"""The estimators of joint tables: what all of them owe, and each against its definition written out in loops."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, ndtri
from scipy.stats import gaussian_kde, multivariate_normal
from sklearn.base import clone

from metaverify.fitting.coding import CodedLog, code_log, ladders_of
from metaverify.fitting.ladders import Ladder, Rung, leaf_shape
from metaverify.fitting.lattice import Lattice
from metaverify.fitting.models.automix import AutoMixCounts, AutoMixKDE
from metaverify.fitting.models.average import Average
from metaverify.fitting.models.base import HiddenStateModel, TableModel
from metaverify.fitting.models.calibrated import Calibrated
from metaverify.fitting.models.copula import Copula
from metaverify.fitting.models.counts import Counts
from metaverify.fitting.models.kernel import RankKernel
from metaverify.fitting.models.latent import LatentClasses
from metaverify.fitting.models.patterns import Patterns
from metaverify.fitting.models.performance import performances
from metaverify.fitting.table import JointTable
from metaverify.simulators.worlds import Emission, World
from tests.strategies import random_log

MODELS: dict[str, TableModel] = {
    "counts": Counts(),
    "smoothed counts": Counts(strength=10.0),
    "automix counts": AutoMixCounts(),
    "automix kde": AutoMixKDE(),
    "platt": Calibrated("platt"),
    "isotonic": Calibrated("isotonic"),
    "patterns": Patterns(),
    "rank kernel": RankKernel(),
    "latent classes": LatentClasses(classes=3, starts=1),
    "copula": Copula(),
    "average": Average((Counts(), LatentClasses(classes=2, starts=1), Patterns()), (1.0, 2.0, 1.0)),
}
HIDDEN = {name: model for name, model in MODELS.items() if isinstance(model, HiddenStateModel)}
KINDS: dict[str, dict] = {
    "plain": {},
    "scores": {"scored": True},
    "weights and varying prices": {"weighted": True, "varying": True},
    "several readings": {"readings": ("free paid", "paid", "free")},
    "samples": {"readings": ("free sample", "gift", "free")},
    "nothing read": {"readings": ("", "")},
    "two rows": {"rows": 2},
}
EXACT = 1e-12


def coded_log(rows: int = 120, seed: int = 0, bins: int = 3, **kind: object) -> CodedLog:
    log = random_log(rows, seed, **kind)
    return code_log(log, ladders_of(log, bins))


def with_judge(coded: CodedLog) -> CodedLog:
    """The log with a judge of the first tier's answers, and a signal that needs none, before and after its tiers."""
    rng = np.random.default_rng(3)
    first = coded.quality[0]
    assert first is not None
    verdict, signal = ((rng.random(len(coded)) < p).astype(np.int64) for p in (0.2 + 0.6 * first, 0.3))
    zero = np.zeros(len(coded))
    return replace(
        coded,
        ladders=(
            Ladder("judge", (Rung("verdict", (0.5,)),), answer=False, needs=(coded.ladders[0].source,)),
            *coded.ladders,
            Ladder("signal", (Rung("length", (0.5,)),), answer=False),
        ),
        codes=(verdict, *coded.codes, signal),
        quality=(None, *coded.quality, None),
        price=((zero + 0.1,), *coded.price, (zero,)),
    )


def arrays_of(table: JointTable) -> list[np.ndarray]:
    prices = [np.asarray(p) for rungs in table.price for p in rungs]
    return [table.mass, *table.answers.values(), *prices]


def assert_same(one: JointTable, other: JointTable, atol: float = EXACT) -> None:
    for left, right in zip(arrays_of(one), arrays_of(other), strict=True):
        np.testing.assert_allclose(left, right, rtol=0.0, atol=atol)


def assert_valid(table: JointTable) -> None:
    assert table.mass.shape == (1, *leaf_shape(table.ladders))
    assert table.mass.sum() == pytest.approx(1.0, abs=1e-9)
    assert (table.mass >= 0.0).all()
    for ladder, quality in zip(table.ladders, table.quality, strict=True):
        assert (quality is not None) == ladder.answer
    for quality in table.answers.values():
        assert (quality >= 0.0).all()
        assert (quality <= table.mass + EXACT).all()
    for price in (p for rungs in table.price for p in rungs):
        assert np.isfinite(price).all()
        assert np.all(np.asarray(price) >= 0.0)


# What all of them owe -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_a_table_is_one_of_probabilities_and_keeps_means(name: str, kind: str) -> None:
    coded = coded_log(**KINDS[kind])
    table = MODELS[name].table(coded)
    assert_valid(table)
    share = coded.weights / coded.weights.sum()
    slack = 0.02 + 1.0 / len(coded)  # of penalties; most are exact
    assert table.later.keys() == coded.later.keys()
    for place, quality in table.later.items():
        assert quality.sum() == pytest.approx(share @ coded.later[place], abs=slack)
    for source, quality in enumerate(table.quality):
        assert quality.sum() == pytest.approx(share @ coded.quality[source], abs=slack)
        price = table.price[source][0]
        mean = price if isinstance(price, float) else price.sum()
        assert mean == pytest.approx(share @ coded.price[source][0], rel=0.05)


@pytest.mark.parametrize("name", MODELS)
def test_sources_without_an_answer_have_a_place(name: str) -> None:
    coded = with_judge(coded_log())
    table = MODELS[name].table(coded)
    assert_valid(table)
    for source in (0, len(coded.ladders) - 1):
        count = np.bincount(coded.codes[0 if source == 0 else -1], minlength=3) / len(coded)
        axes = tuple(axis for axis in range(table.mass.ndim) if axis != (1 if source == 0 else table.mass.ndim - 1))
        assert table.mass.sum(axis=axes) == pytest.approx(count, abs=0.02)
    assert math.isfinite(Lattice(table).solve(0.01).quality)


@pytest.mark.parametrize("name", MODELS)
def test_a_clone_has_the_same_options_and_makes_the_same_table(name: str) -> None:
    model, coded = MODELS[name], coded_log(60, varying=True)
    copy = clone(model)
    options = copy.get_params(deep=False)
    assert repr(options) == repr(model.get_params(deep=False))
    again = type(model)(**options).fit(coded).table_
    assert [a.tobytes() for a in arrays_of(again)] == [a.tobytes() for a in arrays_of(model.table(coded))]


@pytest.mark.parametrize("kind", [{}, {"scored": True, "weighted": True, "varying": True}], ids=["plain", "everything"])
@pytest.mark.parametrize("name", MODELS)
def test_the_order_of_rows_does_not_matter(name: str, kind: dict) -> None:
    coded = coded_log(150, 1, **kind)
    order = np.random.default_rng(0).permutation(len(coded))
    table, shuffled = MODELS[name].table(coded), MODELS[name].table(coded.take(order))
    assert_same(table, shuffled, 1e-9)
    if not kind and name != "copula":  # sums of ones are exact
        assert [a.tobytes() for a in arrays_of(table)] == [a.tobytes() for a in arrays_of(shuffled)]


@pytest.mark.parametrize("scored", [False, True], ids=["right or wrong", "scores"])
@pytest.mark.parametrize("name", MODELS)
def test_a_weight_of_two_is_the_row_twice(name: str, scored: bool) -> None:
    coded = coded_log(100, 2, scored=scored, varying=True)
    heavy = replace(coded, weights=1.0 + (np.arange(100) % 2))
    double = coded.take(np.sort(np.concatenate([np.arange(100), np.arange(1, 100, 2)])))
    assert_same(MODELS[name].table(heavy), MODELS[name].table(double), 1e-5)


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_states_have_emissions_and_qualities_that_are_probabilities(name: str) -> None:
    seen = HIDDEN[name].observe(with_judge(coded_log(varying=True, scored=True)))
    assert seen.prior.sum() == pytest.approx(1.0)
    for emission in seen.emission:
        assert (emission >= 0.0).all()
        assert emission.sum(axis=1) == pytest.approx(np.ones(len(seen.prior)))
    assert all(((q >= 0.0) & (q <= 1.0)).all() for q in seen.quality if q is not None)
    assert_same(seen.table(), HIDDEN[name].table(with_judge(coded_log(varying=True, scored=True))))


@pytest.mark.parametrize("name", ["automix counts", "automix kde", "platt", "isotonic", "patterns"])
def test_a_quality_that_is_not_known_is_refused_with_its_place(name: str) -> None:
    coded = coded_log(20)
    unknown = np.where(np.arange(20) == 6, np.nan, coded.quality[1])
    with pytest.raises(ValueError, match=r"row 7 of 'tier1': its quality is not known; leave such rows out"):
        MODELS[name].table(replace(coded, quality=(coded.quality[0], unknown, coded.quality[2])))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Counts(strength=-1.0), "strength of Counts is -1.0; give at least 0"),
        (Patterns(own=math.nan), "own of Patterns is nan; give at least 0"),
        (RankKernel(bandwidth=0.0), "bandwidth of RankKernel is 0.0; give at least 1e-09"),
        (AutoMixKDE(bandwidth=0.0), "bandwidth of AutoMixKDE is 0.0; give at least 1e-09"),
        (AutoMixKDE(states=0), "states of AutoMixKDE is 0; give at least 1"),
        (LatentClasses(classes=0), "classes of LatentClasses is 0; give at least 1"),
        (LatentClasses(own=0.0), "own of LatentClasses is 0.0; give at least 1e-09"),
        (LatentClasses(starts=-1), "starts of LatentClasses is -1; give at least 0"),
        (Calibrated("probit"), "curve of Calibrated is 'probit'; give one of isotonic, platt"),
    ],
)
def test_an_option_that_is_none_is_refused_with_its_value(model: TableModel, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.table(coded_log(20))


# Counts ---------------------------------------------------------------------------------------------------------------

TINY = CodedLog(  # four queries, two tiers with one reading each: low, high, missing
    (Ladder("a", (Rung("conf", (0.5,)),)), Ladder("b", (Rung("conf", (0.5,)),))),
    (np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])),
    (np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.0, 0.0, 1.0, 1.0])),
    ((np.ones(4),), (np.array([2.0, 2.0, 4.0, 8.0]),)),
    np.ones(4),
    np.full(4, -1),
)


def test_smoothing_adds_rows_in_which_sources_are_independent() -> None:
    table = Counts(strength=4.0).table(TINY)
    # a: half low (right by half), half high (right); b: a quarter low (wrong, dear 2), three high (2 of 3, dear 14 / 3)
    mass = [[1 / 4 + 1 / 8, 1 / 4 + 3 / 8, 0], [1 / 8, 1 / 2 + 3 / 8, 0], [0, 0, 0]]
    right_a = [[0 + 1 / 16, 1 / 4 + 3 / 16, 0], [1 / 8, 1 / 2 + 3 / 8, 0], [0, 0, 0]]
    right_b = [[0, 0 + 1 / 4, 0], [0, 1 / 2 + 1 / 4, 0], [0, 0, 0]]
    price_b = [[1 / 2 + 1 / 4, 1 / 2 + 7 / 4, 0], [1 / 4, 3 + 7 / 4, 0], [0, 0, 0]]
    for found, expected in zip(
        (table.mass, *table.quality, table.price[1][0]), (mass, right_a, right_b, price_b), strict=True
    ):
        np.testing.assert_allclose(found[0], np.array(expected) / 2, atol=EXACT)
    assert table.price[0] == (1.0,)


# AutoMix --------------------------------------------------------------------------------------------------------------


def by_definition(coded: CodedLog, kernel: object) -> tuple[np.ndarray, list[np.ndarray]]:
    """P(o) and E[quality · 1{o}] of AutoMix, row by row: the belief starts uniform over training queries, what a rung
    shows is seen among all training queries, those near in performance counting most."""
    shape, n = leaf_shape(coded.ladders), len(coded)
    states = list(zip(*(q.tolist() for q in coded.quality), strict=True))
    mass, quality = np.zeros(shape), [np.zeros(shape) for _ in coded.quality]
    for i in range(n):
        near = np.array([kernel(states[i], states[j]) for j in range(n)]) * coded.weights
        emission = [
            np.array([near[code == outcome].sum() for outcome in range(size)]) / near.sum()
            for code, size in zip(coded.codes, shape, strict=True)
        ]
        chance = coded.weights[i] / coded.weights.sum()
        for cell in np.ndindex(shape):
            p = chance * math.prod(e[o] for e, o in zip(emission, cell, strict=True))
            mass[cell] += p
            for source, q in enumerate(quality):
                q[cell] += p * states[i][source]
    return mass, quality


@pytest.mark.parametrize("scored", [False, True], ids=["right or wrong", "scores"])
def test_automix_by_counts_is_the_papers_definition(scored: bool) -> None:
    coded = coded_log(40, 4, scored=scored, weighted=True, readings=("free", "paid", ""))
    mass, quality = by_definition(coded, lambda s, t: float(s == t))
    table = AutoMixCounts().table(coded)
    np.testing.assert_allclose(table.mass[0], mass, atol=EXACT)
    for found, expected in zip(table.quality, quality, strict=True):
        np.testing.assert_allclose(found[0], expected, atol=EXACT)


def test_automix_by_kernels_has_scipys_density_and_bandwidth() -> None:
    coded = coded_log(50, 5, scored=True, readings=("free", "paid", "free"))
    points = np.stack(coded.quality)
    density = gaussian_kde(points)  # Scott's rule
    around = [multivariate_normal(point, density.covariance) for point in points.T]
    found = performances(coded)
    seen = AutoMixKDE().observe(coded)
    for state, value in enumerate(found.value):
        of_each = np.array([normal.pdf(value) for normal in around]) / len(coded)  # P(s, query)
        for emission, code in zip(seen.emission, coded.codes, strict=True):
            joint = np.bincount(code, weights=of_each, minlength=emission.shape[1])
            np.testing.assert_allclose(emission[state], joint / density(value), atol=1e-9)
    expected, _ = by_definition(coded, lambda s, t: multivariate_normal(t, density.covariance).pdf(s))
    np.testing.assert_allclose(AutoMixKDE().table(coded).mass[0], expected, atol=1e-9)


def test_a_narrow_kernel_counts_and_a_wide_one_forgets_performance() -> None:
    coded = coded_log(80, 6, scored=True)
    assert_same(AutoMixKDE(bandwidth=1e-3).table(coded), AutoMixCounts().table(coded))
    emissions = AutoMixKDE(bandwidth=1e4).observe(coded).emission
    for code, emission in zip(coded.codes, emissions, strict=True):
        share = np.bincount(code, minlength=emission.shape[1]) / len(coded)
        np.testing.assert_allclose(emission, np.tile(share, (len(emission), 1)), atol=1e-6)


def test_a_tier_that_is_always_right_takes_no_part_in_the_kernel() -> None:
    coded = coded_log(60, 7, scored=True)
    sure = replace(coded, quality=(coded.quality[0], np.ones(60), coded.quality[0]))
    assert_valid(AutoMixKDE().table(sure))
    first, other = AutoMixKDE().observe(sure), AutoMixKDE(bandwidth=1e-3).observe(sure)
    assert not np.allclose(first.emission[0], other.emission[0])


def test_performance_is_rounded_only_as_far_as_needed_and_keeps_its_means() -> None:
    rng = np.random.default_rng(8)
    coded = coded_log(400, 8)
    coded = replace(coded, quality=tuple(rng.beta(1, 1, 400) for _ in range(3)), weights=rng.integers(1, 4, 400) / 2)
    assert len(performances(coded).weight) == 400
    for most in (300, 100, 8):
        found = performances(coded, most)
        assert most / 8 <= len(found.weight) <= most  # half the grid's steps merge at most 2 ** 3 vectors into one
        share = coded.weights / coded.weights.sum()
        for at, quality in enumerate(coded.quality):
            assert found.weight @ found.value[:, at] / found.weight.sum() == pytest.approx(share @ quality)
            assert np.abs(found.value[found.member, at] - quality).max() <= 0.5 + EXACT


# Kernels on ranks -----------------------------------------------------------------------------------------------------


def test_a_rank_kernel_spreads_each_row_over_the_bins_near_its_own() -> None:
    coded = coded_log(30, 18, bins=4, weighted=True, readings=("free", "paid"))
    rows = float(coded.weights.sum())
    width = 0.8 * math.sqrt(1 / 12) * rows ** (-1 / 6)  # two readings
    shape = leaf_shape(coded.ladders)
    mass, right = np.zeros(shape), np.zeros(shape)
    for row in range(30):
        to = []
        for code, size in zip(coded.codes, shape, strict=True):
            seen = code < size - 1
            share = [coded.weights[code == b].sum() / coded.weights[seen].sum() for b in range(size - 1)]
            rank = [sum(share[:b]) + share[b] / 2 for b in range(size - 1)]
            if size == 1 or not seen[row]:
                to.append([float(b == code[row]) for b in range(size)])
                continue
            near = [s * math.exp(-0.5 * ((r - rank[code[row]]) / width) ** 2) for s, r in zip(share, rank, strict=True)]
            to.append([*(x / sum(near) for x in near), 0.0])
        for cell in np.ndindex(shape):
            part = coded.weights[row] / rows * math.prod(t[o] for t, o in zip(to, cell, strict=True))
            mass[cell] += part
            right[cell] += part * coded.quality[1][row]
    table = RankKernel(bandwidth=0.8).table(coded)
    np.testing.assert_allclose(table.mass[0], mass, atol=1e-10)
    np.testing.assert_allclose(table.quality[1][0], right, atol=1e-10)


def test_a_narrow_rank_kernel_counts_and_a_wide_one_makes_readings_worthless() -> None:
    coded = coded_log(80, 19, missing=0.0, varying=True)
    assert_same(RankKernel(bandwidth=1e-6).table(coded), Counts().table(coded))
    wide = RankKernel(bandwidth=1e6).table(coded)
    shares = [
        np.bincount(code, minlength=size) / 80 for code, size in zip(coded.codes, wide.mass.shape[1:], strict=True)
    ]
    alone = shares[0]
    for share in shares[1:]:
        alone = np.multiply.outer(alone, share)
    np.testing.assert_allclose(wide.mass[0], alone, atol=1e-9)
    for found, quality in zip(wide.quality, coded.quality, strict=True):
        np.testing.assert_allclose(found[0], alone * quality.mean(), atol=1e-9)


# Calibration, independent given correctness ---------------------------------------------------------------------------


def brute_calibration(curve: str, code: np.ndarray, right: np.ndarray, size: int) -> np.ndarray:
    """P(right | outcome), row by row; "missing" by its own share."""
    chance = np.array([right[code == o].mean() if (code == o).any() else 0.0 for o in range(size)])
    seen = code < size - 1
    if curve == "isotonic":
        order = np.argsort(code[seen], kind="stable")
        means = np.array([right[code == o].mean() for o in code[seen][order]])
        fitted = isotonic_regression(means).x
        chance[code[seen][order]] = fitted
        return chance
    rank = {o: (code[seen] < o).mean() + (code[seen] == o).mean() / 2 for o in set(code[seen].tolist())}
    score = ndtri([rank[o] for o in code[seen].tolist()])
    good = right[seen].sum()
    target = np.where(right[seen] > 0.5, (good + 1) / (good + 2), 1 / (seen.sum() - good + 2))

    def loss(line: np.ndarray) -> float:
        z = line[0] + line[1] * score
        return float((np.logaddexp(0, z) - target * z).sum())

    line = minimize(loss, np.zeros(2), method="BFGS", options={"gtol": 1e-9}).x
    for o, share in rank.items():
        chance[o] = expit(line[0] + line[1] * ndtri(share))
    return chance


@pytest.mark.parametrize("curve", ["isotonic", "platt"])
def test_calibrated_readings_are_combined_as_if_independent_given_who_is_right(curve: str) -> None:
    coded = coded_log(90, 9, bins=4, readings=("free", "paid", "free paid"))
    table = Calibrated(curve).table(coded)
    shape = leaf_shape(coded.ladders)
    owner = [source for source, ladder in enumerate(coded.ladders) for _ in ladder.rungs]
    given = []  # a rung: [wrong or right, outcomes]
    for code, size, source in zip(coded.codes, shape, owner, strict=True):
        count, chance = np.bincount(code, minlength=size), np.ones(size)
        if size > 1:
            chance = brute_calibration(curve, code, coded.quality[source], size)
        both = np.stack([count * (1 - chance) if size > 1 else count, count * chance])
        given.append(both / both.sum(axis=1, keepdims=True))
    mass, quality = np.zeros(shape), [np.zeros(shape) for _ in range(3)]
    for row in range(90):
        pattern = [int(q[row]) for q in coded.quality]
        for cell in np.ndindex(shape):
            p = math.prod(g[pattern[s], o] for g, s, o in zip(given, owner, cell, strict=True)) / 90
            mass[cell] += p
            for source in range(3):
                quality[source][cell] += p * pattern[source]
    np.testing.assert_allclose(table.mass[0], mass, atol=1e-6)
    for found, expected in zip(table.quality, quality, strict=True):
        np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_an_isotonic_curve_never_falls() -> None:
    coded = coded_log(300, 10, bins=8, missing=0.0)
    seen = Calibrated("isotonic").observe(coded)
    right = seen.quality[0] > 0.5
    wrong_shows, right_shows = seen.emission[0][~right][0], seen.emission[0][right][0]
    odds = right_shows[:-1] / np.maximum(wrong_shows[:-1], 1e-12)
    assert (np.diff(odds) >= -1e-9).all()


# Patterns -------------------------------------------------------------------------------------------------------------


def test_patterns_without_shrinkage_are_automix_by_counts() -> None:
    coded = coded_log(80, 11, weighted=True, varying=True)
    assert_same(Patterns(independent=0.0, own=0.0, marginal=0.0).table(coded), AutoMixCounts().table(coded))


def test_patterns_shrink_from_pattern_to_own_correctness_to_the_outcomes_share() -> None:
    coded = coded_log(70, 12)
    model = Patterns(independent=3.0, own=7.0, marginal=2.0)
    seen = model.observe(coded)
    found = [tuple(q[z] for q in seen.quality) for z in range(len(seen.prior))]
    right = np.stack(coded.quality, axis=1)
    owner = [source for source, ladder in enumerate(coded.ladders) for _ in ladder.rungs]
    for z, pattern in enumerate(found):
        rows = (right == pattern).all(axis=1)
        alone = math.prod(right[:, s].mean() if p else 1 - right[:, s].mean() for s, p in enumerate(pattern))
        assert seen.prior[z] == pytest.approx((rows.sum() + 3 * alone) / 73, abs=EXACT)
        for code, source, emission in zip(coded.codes, owner, seen.emission, strict=True):
            same = right[:, source] == pattern[source]
            for outcome, chance in enumerate(emission[z]):
                share = (code == outcome).mean()
                by_own = ((code[same] == outcome).sum() + 2 * share) / (same.sum() + 2)
                assert chance == pytest.approx(((code[rows] == outcome).sum() + 7 * by_own) / (rows.sum() + 7))


@pytest.mark.parametrize("name", ["patterns", "isotonic", "platt"])
def test_a_score_is_the_share_of_a_query_that_is_right(name: str) -> None:
    coded = coded_log(40, 13, scored=True, varying=True)
    parts, chances = [], []
    for sides in itertools.product((0.0, 1.0), repeat=3):
        chance = np.prod([q if side else 1 - q for q, side in zip(coded.quality, sides, strict=True)], axis=0)
        parts.append(replace(coded, quality=tuple(np.full(40, side) for side in sides)))
        chances.append(chance)
    split = replace(
        coded,
        codes=tuple(np.tile(code, 8) for code in coded.codes),
        quality=tuple(np.concatenate([p.quality[s] for p in parts]) for s in range(3)),
        price=tuple(tuple(np.tile(p, 8) for p in rungs) for rungs in coded.price),
        weights=np.concatenate(chances),
        context=np.tile(coded.context, 8),
    )
    assert_same(MODELS[name].table(coded), MODELS[name].table(split.take(split.weights > 0)), 1e-9)


# Latent classes -------------------------------------------------------------------------------------------------------


def without_some(coded: CodedLog, share: float, seed: int) -> CodedLog:
    """The log with that share of qualities not known."""
    rng = np.random.default_rng(seed)
    return replace(coded, quality=tuple(np.where(rng.random(len(coded)) < share, np.nan, q) for q in coded.quality))


@pytest.mark.parametrize("kind", ["plain", "scores", "unknown", "judge"])
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_the_likelihood_never_falls(classes: int, kind: str) -> None:
    coded = coded_log(300, 14, scored=kind == "scores", weighted=True)
    coded = {"unknown": without_some(coded, 0.4, 0), "judge": with_judge(coded)}.get(kind, coded)
    history = LatentClasses(classes).mixture(coded).history
    assert len(history) > 1
    assert (np.diff(history) > -1e-12).all()


def test_the_likelihood_is_that_of_the_mixture_written_out() -> None:
    coded = without_some(coded_log(60, 15, weighted=True, readings=("free paid", "paid")), 0.3, 1)
    model = LatentClasses(2, own=5.0, marginal=3.0)
    found = model.mixture(coded)
    owner = [source for source, ladder in enumerate(coded.ladders) for _ in ladder.rungs]
    total = 0.0
    for row in range(60):
        chance = 0.0
        for z, share in enumerate(found.share):
            p = float(share)
            for source, quality in enumerate(coded.quality):
                sides = []
                for side in (0, 1):
                    shown = [
                        found.emission[r][z, side, coded.codes[r][row]] for r, of in enumerate(owner) if of == source
                    ]
                    sides.append(math.prod([found.right[z, source] if side else 1 - found.right[z, source], *shown]))
                p *= sum(sides) if np.isnan(quality[row]) else sides[int(quality[row])]
            chance += p
        total += coded.weights[row] * math.log(chance)
    prior = sum(math.log(share) for share in found.share)
    for source, quality in enumerate(coded.quality):
        known = ~np.isnan(quality)
        mean = np.average(quality[known], weights=coded.weights[known])
        prior += sum(mean * math.log(r) + (1 - mean) * math.log(1 - r) for r in found.right[:, source])
        for code, emission, of in zip(coded.codes, found.emission, owner, strict=True):
            for side, outcome in itertools.product((0, 1), range(emission.shape[2] if of == source else 0)):
                share = np.average(code == outcome, weights=coded.weights)
                on = known & (quality == side)
                centre = (coded.weights[on & (code == outcome)].sum() + 3 * share) / (coded.weights[on].sum() + 3)
                prior += 5 * sum(centre * math.log(emission[z, side, outcome]) for z in range(2) if centre > 0)
    assert found.history[-1] == pytest.approx((total + prior) / coded.weights.sum(), abs=1e-10)


def test_one_class_is_independence_given_own_correctness() -> None:
    coded = coded_log(200, 16)
    found = LatentClasses(1, own=1e-9, marginal=1e-9).mixture(coded)
    owner = [source for source, ladder in enumerate(coded.ladders) for _ in ladder.rungs]
    for source, quality in enumerate(coded.quality):
        assert found.right[0, source] == pytest.approx(quality.mean(), abs=1e-9)
    for code, emission, source in zip(coded.codes, found.emission, owner, strict=True):
        for side in (0, 1):
            rows = coded.quality[source] == side
            share = np.bincount(code[rows], minlength=emission.shape[2]) / rows.sum()
            np.testing.assert_allclose(emission[0, side], share, atol=1e-9)


PLANTED = World(  # easy queries, and hard ones on which the small model is wrong and sure
    ("small", "medium", "large"),
    np.array([0.65, 0.35]),
    np.array([[0.9, 0.93, 0.97], [0.15, 0.4, 0.8]]),
    np.tile([1.0, 4.0, 16.0], (2, 1)),
    tuple(
        (
            Emission(
                "conf",
                np.array([0.2, 0.5, 0.8]),
                np.array([[[0.4, 0.4, 0.2], [0.1, 0.3, 0.6]], [[0.2, 0.2, 0.6], [0.5, 0.3, 0.2]]]),
            ),
        )
        for _ in range(3)
    ),
)


@pytest.mark.parametrize("unknown", [0.0, 0.2], ids=["all known", "a fifth of the qualities not known"])
def test_two_planted_classes_are_found(unknown: float) -> None:
    log = PLANTED.draw(20_000, 0)
    coded = without_some(code_log(log, ladders_of(log, 3)), unknown, 2)
    found = LatentClasses(2).mixture(coded)
    order = np.argsort(-found.share)
    assert found.share[order] == pytest.approx(PLANTED.prior, abs=0.02)
    np.testing.assert_allclose(found.right[order], PLANTED.success, atol=0.03)
    chance = np.stack([1.0 - PLANTED.success, PLANTED.success], axis=-1)  # [classes, tiers, wrong or right]
    rows = 20_000 * (1.0 - unknown) * PLANTED.prior[:, None, None] * chance
    for at, emission in enumerate(found.emission):
        error = np.abs(emission[order][..., :3] - PLANTED.readings[at][0].chance).max(axis=-1)
        assert (error < 4 * 0.5 / np.sqrt(rows[:, at])).all()  # standard errors, were the classes seen


def test_rows_of_unknown_quality_still_say_what_readings_do_together() -> None:
    log = PLANTED.draw(6000, 1)
    coded = code_log(log, ladders_of(log, 3))
    table = LatentClasses(2).table(coded)
    with_unknown = LatentClasses(2).table(without_some(coded, 0.3, 3))
    assert_valid(with_unknown)
    assert np.abs(table.mass - with_unknown.mass).max() < 3e-3
    for one, other in zip(table.quality, with_unknown.quality, strict=True):
        assert one.sum() == pytest.approx(other.sum(), abs=0.01)


def test_a_tier_of_which_no_quality_is_known_is_refused() -> None:
    coded = coded_log(20)
    with pytest.raises(ValueError, match=r"'tier2': no quality is known in any row; leave the tier out"):
        LatentClasses().table(replace(coded, quality=(*coded.quality[:2], np.full(20, np.nan))))


# Averages -------------------------------------------------------------------------------------------------------------


def test_an_average_of_models_is_the_average_of_their_tables_with_the_prices_of_the_first() -> None:
    coded = coded_log(80, 17, varying=True)
    first, second = parts = [model.table(coded) for model in (Copula(), Patterns())]
    mixed = Average((Copula(), Patterns()), (3.0, 1.0)).table(coded)
    np.testing.assert_allclose(mixed.mass, 0.75 * first.mass + 0.25 * second.mass, atol=EXACT)
    for source in range(len(mixed.ladders)):
        one, other, found = first.quality[source], second.quality[source], mixed.quality[source]
        assert one is not None
        assert other is not None
        np.testing.assert_allclose(found, 0.75 * one + 0.25 * other, atol=EXACT)
        for mean, expected in zip(first.price[source], mixed.price[source], strict=True):
            per_call = mean if isinstance(mean, float) else mean / first.mass
            given = expected if isinstance(expected, float) else expected / mixed.mass
            np.testing.assert_allclose(given, per_call, rtol=1e-9)
    assert_same(Average((Patterns(),)).table(coded), parts[1])


@pytest.mark.parametrize("wrong", [Average(), Average((Counts(),), (1.0, 2.0)), Average((Counts(),), (0.0,))])
def test_an_average_needs_models_and_weights_above_0(wrong: Average) -> None:
    with pytest.raises(ValueError, match=r"an average of \d models has weights"):
        wrong.table(coded_log(10))
