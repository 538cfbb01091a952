"""The log that ships: it can be remade, its prices follow from the models, and its readings inform."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from metaverify.simulators.digits import digits_path, load_digits_log
from metaverify.simulators.log import ReplayLog
from metaverify.simulators.reader import read_log

MAKER = Path(__file__).resolve().parents[2] / "examples" / "make_digits_log.py"
TIERS = ("tiny", "small", "medium", "large")


@pytest.fixture(scope="module")
def log() -> ReplayLog:
    return load_digits_log(context="ink")


def test_it_is_small() -> None:
    assert len(digits_path().read_bytes()) < 60_000


def test_it_has_every_image_every_tier_and_both_readings(log: ReplayLog) -> None:
    assert len(log) == len(set(log.query_ids)) == 1797
    assert log.query_ids[0] == "digit-0000"
    assert log.tier_names == TIERS
    for tier in log.tiers:
        assert [reading.name for reading in tier.readings] == ["conf", "votes"]
        assert set(tier.correct) == {0.0, 1.0}
        for reading in tier.readings:
            assert reading.confidence.min() >= 0.0
            assert reading.confidence.max() <= 1.0


def test_dearer_tiers_are_better_by_a_real_margin(log: ReplayLog) -> None:
    accuracy = np.array([tier.correct.mean() for tier in log.tiers])
    price = np.array([tier.cost.mean() for tier in log.tiers])
    assert 0.55 < accuracy[0] < 0.7
    assert accuracy[-1] > 0.98
    assert np.all(np.diff(accuracy) > 0.05)
    assert np.all(price[1:] / price[:-1] > 10.0)


def test_costs_are_the_multiply_adds_of_the_fitted_models(log: ReplayLog) -> None:
    assert set(log.tier("small").cost) == {(64 + 2 * 16 * 10) / 1000}
    assert set(log.tier("medium").cost) == {(64 * 96 + 96 * 10) / 1000}
    assert set(log.tier("large").cost) == {64 * images / 1000 for images in (1797 - 360, 1797 - 359)}
    comparisons = 1000 * log.tier("tiny").cost
    np.testing.assert_allclose(comparisons, comparisons.round(), atol=1e-9)
    assert comparisons.min() >= 1.0


def test_a_probability_is_free_and_eight_votes_cost_eight_calls(log: ReplayLog) -> None:
    for tier in log.tiers:
        own, votes = tier.readings
        assert not own.price.any()
        np.testing.assert_array_equal(votes.confidence * 8, (votes.confidence * 8).round())
        if tier.name == "tiny":  # the tree's path depends on the noise
            assert np.all((votes.price >= 8 * tier.cost.min()) & (votes.price <= 8 * tier.cost.max()))
        else:
            np.testing.assert_allclose(votes.price, 8 * tier.cost, rtol=1e-12)


def test_ink_is_known_from_the_image_alone(log: ReplayLog) -> None:
    images, _ = load_digits(return_X_y=True)
    ink = images.sum(axis=1)
    third = {name: ink[log.contexts == name] for name in ("light", "medium", "heavy")}
    assert third["light"].max() < third["medium"].min()
    assert third["medium"].max() < third["heavy"].min()
    for values in third.values():
        assert len(values) == pytest.approx(1797 / 3, abs=15)


def test_every_reading_tells_right_from_wrong(log: ReplayLog) -> None:
    for tier in log.tiers:
        for reading in tier.readings:
            assert roc_auc_score(tier.correct, reading.confidence) > 0.6


def test_tiers_fail_on_the_same_images(log: ReplayLog) -> None:
    assert np.corrcoef([tier.correct for tier in log.tiers]).min() > 0.05


@pytest.mark.parametrize(("small", "large"), [("small", "medium"), ("small", "large"), ("medium", "large")])
def test_a_cut_on_confidence_beats_tossing_a_coin_at_equal_cost(log: ReplayLog, small: str, large: str) -> None:
    cheap, dear = log.tier(small), log.tier(large)
    confidence = cheap.readings[0].confidence
    up = confidence < np.quantile(confidence, 0.3)
    share = np.mean(up * dear.cost) / (dear.cost.mean() - cheap.cost.mean())  # sent to the dear tier at the same cost
    cut = np.where(up, dear.correct, cheap.correct).mean()
    coin = cheap.correct.mean() + share * (dear.correct.mean() - cheap.correct.mean())
    assert cut > coin + 0.02


def make(output: Path) -> Path:
    subprocess.run([sys.executable, MAKER, output], check=True, capture_output=True)
    return output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("made") / "digits.csv.gz")


def test_making_it_again_gives_the_same_log(made: Path, log: ReplayLog) -> None:
    again = read_log(made, context="ink")
    np.testing.assert_array_equal(again.query_ids, log.query_ids)
    np.testing.assert_array_equal(again.contexts, log.contexts)
    for a, b in zip(again.tiers, log.tiers, strict=True):  # fits differ a little between platforms and versions
        assert a.cost.mean() == pytest.approx(b.cost.mean(), rel=0.05)
        assert np.mean(a.correct != b.correct) < 0.03
        for x, y in zip(a.readings, b.readings, strict=True):
            assert np.abs(x.confidence - y.confidence).mean() < 0.03


def test_making_it_twice_on_one_machine_gives_the_same_bytes(made: Path, tmp_path: Path) -> None:
    assert make(tmp_path / "digits.csv.gz").read_bytes() == made.read_bytes()
