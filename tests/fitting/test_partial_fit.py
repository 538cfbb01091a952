"""What is learnt from a partial log: the truth where it can be known, and a refusal where it cannot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from metaverify.cli import main
from metaverify.fitting.certify import certify
from metaverify.fitting.coding import UNKNOWN, CodedLog, code_log, code_partial, ladders_of
from metaverify.fitting.models.latent import LatentClasses
from metaverify.fitting.models.patterns import Patterns
from metaverify.fitting.partial_fit import PartialFit, fit_partial
from metaverify.fitting.support import gaps
from metaverify.policies.exploration import Exploration
from metaverify.policies.file import dump_policy, load_policy
from metaverify.policies.policy import BudgetError
from metaverify.simulators.log import LogError, ReplayLog
from metaverify.simulators.offpolicy import appraise
from metaverify.simulators.outcome import replay
from metaverify.simulators.overlap import overlapping
from metaverify.simulators.partial import PartialLog, Sighting, complete, whole
from metaverify.simulators.partial_reader import write_partial_log
from metaverify.simulators.trace import hide_tier, observed_by
from metaverify.simulators.traffic import varying
from metaverify.simulators.worlds import WORLDS, hopeless, shared_difficulty, tier_quality
from tests.benchmarks.closed_loop import turn
from tests.simulators.test_offpolicy import OLD


def doubted(log: ReplayLog, below: float, rate: float, seed: int) -> PartialLog:
    """Two tiers, the second called where the first doubts, and for a share of the others."""
    first, second = log.tiers
    explored = np.random.default_rng(seed).random(len(log)) < rate
    doubt = first.readings[0].confidence < below
    always = Sighting(np.ones(len(log), dtype=bool), np.ones(len(log)))
    return PartialLog(
        replace(log, tiers=(first, hide_tier(second, doubt | explored))),
        {first.name: always, second.name: Sighting(doubt | explored, np.where(doubt, 1.0, rate))},
        {first.name: always, second.name: Sighting(doubt | explored, np.ones(len(log)))},
    )


@pytest.mark.slow
@pytest.mark.parametrize(("world", "below"), [("shared_difficulty", 0.4), ("hopeless", 0.8)])
def test_expectation_maximisation_finds_the_quality_that_a_naive_fit_is_points_off(world: str, below: float) -> None:
    made = WORLDS[world](2)
    partial = doubted(made.draw(400_000, 1), below, 0.05, 11)
    found = LatentClasses(starts=10).table(code_partial(partial, ladders_of(partial.log, 8)))
    truth = float(tier_quality(made)[1])
    assert found.quality[1] is not None
    assert found.quality[1].sum() == pytest.approx(truth, abs=0.01)
    assert truth - float(np.nanmean(partial.log.tiers[1].correct)) > 0.07


def test_expectation_maximisation_is_nearer_than_a_naive_fit() -> None:
    made = hopeless(2)
    partial = doubted(made.draw(20_000, 1), 0.8, 0.05, 1)
    found = LatentClasses(starts=1).table(code_partial(partial, ladders_of(partial.log, 8)))
    truth = float(tier_quality(made)[1])
    assert found.quality[1] is not None
    assert found.quality[1].sum() == pytest.approx(truth, abs=0.02)
    assert truth - float(np.nanmean(partial.log.tiers[1].correct)) > 0.06


def likelihood(model: LatentClasses, coded: CodedLog) -> float:
    """The log-likelihood of rows by a mixture, by loops over everything that was not seen."""
    found = model.mixture(coded)
    total = 0.0
    for row in range(len(coded)):
        mass = 0.0
        for z, share in enumerate(found.share):
            given = float(share)
            for tier, quality in enumerate(coded.quality):
                assert quality is not None
                outcome = int(coded.codes[tier][row])
                both = 0.0
                for right in (0, 1):
                    if np.isnan(quality[row]) or quality[row] == right:
                        chance = float(found.right[z, tier]) if right else 1.0 - float(found.right[z, tier])
                        seen = 1.0 if outcome == UNKNOWN else float(found.emission[tier][z, right, outcome])
                        both += chance * seen
                given *= both
            mass += given
        total += float(coded.weights[row]) * np.log(mass)
    return total / float(coded.weights.sum())


def test_the_likelihood_sums_over_what_was_not_seen() -> None:
    partial = doubted(shared_difficulty(2, 4).draw(300, 3), 0.5, 0.2, 3)
    coded = code_partial(partial, ladders_of(partial.log, 4))
    model = LatentClasses(2, own=1e-9, marginal=1e-9, starts=1)
    assert model.mixture(coded).history[-1] == pytest.approx(likelihood(model, coded), abs=2e-2)


def test_a_full_log_is_coded_as_ever() -> None:
    log = shared_difficulty().draw(200, 1)
    ladders = ladders_of(log, 4)
    plain, partial = code_log(log, ladders), code_partial(whole(log), ladders)
    for a, b in zip(plain.codes, partial.codes, strict=True):
        np.testing.assert_array_equal(a, b)
    for one, other in zip(plain.price, partial.price, strict=True):
        np.testing.assert_array_equal(one, other)


def test_complete_rows_stand_for_all() -> None:
    log = shared_difficulty().draw(40_000, 3)
    rows = complete(observed_by(OLD, log, Exploration(0.1)))
    for was, is_now in zip(log.tiers, rows.tiers, strict=True):
        assert rows.mean(is_now.correct) == pytest.approx(log.mean(was.correct), abs=0.02)
        for cut in (0.3, 0.6):
            told, known = is_now.readings[0].confidence, was.readings[0].confidence
            assert rows.mean((told < cut).astype(float)) == pytest.approx(
                log.mean((known < cut).astype(float)), abs=0.02
            )
    assert rows.weights.sum() < len(rows)


def test_complete_rows_of_a_full_log_are_the_log() -> None:
    log = shared_difficulty().draw(500, 3)
    np.testing.assert_allclose(complete(whole(log)).weights, log.weights, rtol=1e-12)


# Fits ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def partial() -> PartialLog:
    return observed_by(OLD, hopeless().draw(6000, 2), Exploration(0.1))


@pytest.fixture(scope="module")
def fitted(partial: PartialLog) -> PartialFit:
    return fit_partial(partial, budget=5.0, folds=3)


def test_a_fit_says_what_its_policy_is_to_earn(fitted: PartialFit) -> None:
    truth = replay(fitted.policy, hopeless().draw(100_000, 77))
    assert fitted.quality.low - 0.01 <= truth.quality.mean <= fitted.quality.high + 0.01
    assert truth.cost.mean == pytest.approx(5.0, rel=0.05)
    assert truth.gain.mean > 0.05
    assert fitted.gaps == ()


def test_its_intervals_know_how_few_queries_they_rest_on() -> None:
    few = observed_by(OLD, hopeless().draw(700, 4), Exploration(0.1))
    found = fit_partial(few, budget=5.0, folds=2)
    own = appraise(found.policy, few).estimators["dr"]
    for estimate, of in ((found.quality, own.quality), (found.cost, own.cost)):
        assert estimate.high - estimate.low >= (of.high - of.low) * (1 - 1e-9)


def test_fixed_tiers_stand_beside_it(fitted: PartialFit) -> None:
    truth = tier_quality(hopeless())
    for reference, quality in zip(fitted.references, truth, strict=True):
        assert reference.quality.low - 0.02 <= float(quality) <= reference.quality.high + 0.02
        assert reference.classes is not None
        assert abs(reference.classes.mean - float(quality)) < 4.0 * reference.classes.error
        width = reference.quality.high - reference.quality.low
        assert 2.0 * 1.645 * reference.classes.error < 1.1 * width  # it uses every query


def test_row_order_changes_nothing(partial: PartialLog, fitted: PartialFit) -> None:
    shuffled = partial.take(np.random.default_rng(1).permutation(len(partial)))
    again = fit_partial(shuffled, budget=5.0, folds=3)
    assert again.policy.nodes == fitted.policy.nodes
    assert again.quality == fitted.quality


def test_its_file_is_read_back(fitted: PartialFit, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text(dump_policy(fitted.policy))
    assert load_policy(tmp_path / "policy.json") == fitted.policy


def test_what_prices_were_seen_is_in_the_file() -> None:
    log = WORLDS["token_prices"](2).draw(2000, 3)
    partial = doubted(log, 0.5, 0.2, 1)
    policy = fit_partial(partial, budget=2.5, folds=2).policy
    first, second = partial.log.tiers
    assert varying(policy) == {
        (first.name, None): pytest.approx(float(first.cost.max()), rel=1e-8),
        (second.name, None): pytest.approx(float(np.nanmax(second.cost)), rel=1e-8),
    }
    (_, _, cuts, counts), (_, _, later, rest) = policy.provenance["prices"]
    assert counts == np.histogram(first.cost, [-np.inf, *cuts, np.inf])[0].tolist()
    # of what was called for some only: as in all queries, counted as the sample that it amounts to
    whole_log = np.histogram(log.tiers[1].cost, [-np.inf, *later, np.inf])[0] / len(log)
    np.testing.assert_allclose(np.array(rest) / sum(rest), whole_log, atol=0.04)
    sighting = partial.answers[second.name]
    inverse = 1.0 / sighting.chance[sighting.seen]
    assert sum(rest) == pytest.approx(inverse.sum() ** 2 / (inverse**2).sum(), abs=len(rest) / 2)


def test_a_certificate_on_the_rows_of_a_partial_fit_is_refused(fitted: PartialFit) -> None:
    assert fitted.policy.provenance["dearest"] == []  # its prices are fixed
    with pytest.raises(LogError, match="E_INSAMPLE"):
        certify(fitted.policy, hopeless().draw(6000, 2), budget=5.0)  # the same queries, of which all is known
    assert not overlapping(fitted.policy, hopeless().draw(6000, 77))
    assert [tier.price for tier in fitted.policy.tiers] == [1.0, 4.0, 16.0]


def test_other_models_learn_from_the_rows_that_are_complete(partial: PartialLog) -> None:
    found = fit_partial(partial, price=0.02, model=Patterns(), folds=2)
    assert found.policy.provenance["options"]["model"] == "patterns"
    assert replay(found.policy, hopeless().draw(20_000, 78)).gain.mean > 0.03


def test_what_was_never_tried_is_refused_bin_by_bin_and_not_done_within_the_support() -> None:
    log = shared_difficulty().draw(3000, 5)
    never = observed_by(OLD, log)
    confident = log.tiers[0].readings[0].confidence >= 0.4
    share = sum(gap.share for gap in gaps(never) if gap.wanted == "tier2")
    assert share == pytest.approx(float(confident.mean()), abs=1e-12)
    with pytest.raises(LogError, match=r"E_SUPPORT: never tried: tier2 where the first reading of tier1 is in \[0.4"):
        fit_partial(never, budget=5.0)
    found = fit_partial(never, budget=5.0, within_support=True, folds=2)
    assert found.gaps
    assert appraise(found.policy, never).identified
    assert replay(found.policy, log).quality.mean == pytest.approx(found.quality.mean, abs=0.02)
    assert replay(found.policy, log).calls["tier2"] > 0.05


def test_a_budget_below_all_and_none_at_all_are_refused(partial: PartialLog) -> None:
    with pytest.raises(BudgetError, match=r"budget 0.5 is below 1, the cost of the cheapest policy"):
        fit_partial(partial, budget=0.5, folds=2)
    with pytest.raises(TypeError, match="a budget or a price"):
        fit_partial(partial)


def test_fit_on_the_command_line(partial: PartialLog, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out = tmp_path / "log.parquet", tmp_path / "policy.json"
    write_partial_log(partial.take(np.arange(2000)), log)
    command = ["fit", str(log), "--partial", "--budget", "5", "--folds", "2"]
    assert main([*command, "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert "always tier3" in text
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["policy"]
    assert load_policy(out).evidence["estimator"] == "doubly robust"
    assert main([*command, "--method", "chain"]) == 1
    assert "--method does not go with --partial" in capsys.readouterr().err


@pytest.mark.slow
def test_the_loop_closes_upwards() -> None:
    unseen = hopeless().draw(100_000, 10_007)
    turns = [turn(seed, unseen) for seed in range(4)]
    assert all(each.rose for each in turns)
    assert abs(np.mean([each.reported for each in turns])) < 0.01
