"""Partial logs in files say again what was seen, and how likely that was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from metaverify.cli import main
from metaverify.fitting.support import gaps
from metaverify.policies.decision_log import DecisionLog
from metaverify.policies.exploration import Exploration, ExploredBin
from metaverify.policies.file import save_policy
from metaverify.policies.guards import Guard
from metaverify.policies.policy import OperatingPoint, Policy
from metaverify.policies.router import Failure, Reply, Router
from metaverify.simulators.decisions import join_labels, read_decisions
from metaverify.simulators.log import LogError, ReplayLog
from metaverify.simulators.offpolicy import appraise
from metaverify.simulators.outcome import replay
from metaverify.simulators.partial import PartialLog, whole
from metaverify.simulators.partial_reader import read_partial_log, write_partial_log
from metaverify.simulators.reader import read_log, write_log
from metaverify.simulators.trace import observed_by
from metaverify.simulators.worlds import shared_difficulty
from tests.simulators.test_offpolicy import NEW, OLD, chain

LOG = shared_difficulty().draw(600, 4)


def two_graphs(share: float = 0.3) -> Policy:
    """OLD for most requests, NEW for a share."""
    shift = len(OLD.nodes)
    from metaverify.policies.graph import renumbered

    moved = tuple(renumbered(node, {at: at + shift for at in range(shift)}) for node in NEW.nodes)
    vertices = (OLD.vertices[0], replace(NEW.vertices[0], root=shift, cost=9.0, quality=0.8))
    return Policy(OLD.tiers, (*OLD.nodes, *moved), vertices, OperatingPoint(0, 1, share))


def same(first: PartialLog, second: PartialLog, *, known: bool = True) -> None:
    """Make sure that two partial logs hold the same, in whatever order; the chances of what was not seen if known."""
    first, second = (of.take(np.argsort(of.log.query_ids)) for of in (first, second))
    np.testing.assert_array_equal(first.log.query_ids, second.log.query_ids)
    for a, b in zip(first.log.tiers, second.log.tiers, strict=True):
        np.testing.assert_array_equal(a.correct, b.correct)
        np.testing.assert_array_equal(a.cost, b.cost)
        np.testing.assert_array_equal(a.readings[0].confidence, b.readings[0].confidence)
    for name, sighting in first.answers.items():
        np.testing.assert_array_equal(sighting.seen, second.answers[name].seen)
        rows = sighting.seen | known
        np.testing.assert_allclose(sighting.chance[rows], second.answers[name].chance[rows], rtol=1e-12)
        np.testing.assert_array_equal(first.labels[name].seen, second.labels[name].seen)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_what_was_written_is_read(suffix: str, tmp_path: Path) -> None:
    partial = observed_by(OLD, LOG, Exploration(0.1))
    write_partial_log(partial, tmp_path / f"log{suffix}")
    same(read_partial_log(tmp_path / f"log{suffix}"), partial)


def routed(policy: Policy, log: ReplayLog, folder: Path, exploration: Exploration) -> tuple[pl.DataFrame, Router]:
    """The rows of the decision log of a router that was asked all queries."""
    place = {query: row for row, query in enumerate(log.query_ids)}

    def call(tier: str, query: str) -> Reply:
        of, row = log.tier(tier), place[query]
        return Reply((tier, query), {"conf": float(of.readings[0].confidence[row])}, float(of.cost[row]))

    with DecisionLog(folder / "decisions.jsonl") as written:
        router = Router(policy, call, log=written, exploration=exploration)
        for query in log.query_ids:
            assert router.route(query, key=query).answer[1] == query
    return read_decisions(folder / "decisions.jsonl")[0], router


def labels_of(log: ReplayLog) -> pl.DataFrame:
    return pl.concat(
        [pl.DataFrame({"query_id": log.query_ids.tolist(), "tier": t.name, "correct": t.correct}) for t in log.tiers]
    )


PLACES = (ExploredBin("tier1", "conf", 0.4, 0.8, 0.5, enough=60), ExploredBin("tier2", "conf", 0.0, 1.0, 0.3))


@pytest.mark.parametrize(
    "exploration",
    [Exploration(0.0, "s"), Exploration(0.2, "s"), Exploration(0.1, "s", PLACES)],
    ids=["none", "one rate", "by place"],
)
@pytest.mark.parametrize("policy", [OLD, two_graphs()], ids=["one graph", "two graphs"])
def test_the_decision_log_of_a_router_is_the_trace_of_its_policy(
    policy: Policy, exploration: Exploration, tmp_path: Path
) -> None:
    rows, _ = routed(policy, LOG, tmp_path, exploration)
    join_labels(rows, labels_of(LOG)).drop("context").write_parquet(tmp_path / "log.parquet")
    found = read_partial_log(tmp_path / "log.parquet")
    same(found, observed_by(policy, LOG, exploration), known=exploration.rate > 0.0)


def test_exploring_changes_no_answer(tmp_path: Path) -> None:
    rows, router = routed(OLD, LOG, tmp_path, Exploration(1.0))
    plain = Router(OLD, router._call)
    for query in LOG.query_ids[:100]:
        explored, usual = router.route(query, key=query), plain.route(query, key=query)
        assert (explored.answer, explored.tier) == (usual.answer, usual.tier)
        assert explored.cost == 21.0
        assert {"explored"} >= set(explored.reasons)
    assert len(rows) == 3 * len(LOG)


def test_a_guard_and_what_is_down_bound_exploration() -> None:
    def call(tier: str, _: Any) -> Reply:
        if tier == "tier2":
            raise Failure("down", 0.5)
        return Reply(tier, {"conf": 0.9}, {"tier1": 1.0, "tier3": 16.0}[tier])

    capped = Router(OLD, call, guard=Guard(cap=6.0), exploration=Exploration(1.0)).route("?", key=1)
    assert (capped.answer, capped.cost, capped.reasons) == ("tier1", 1.5, ("down", "cap"))
    free = Router(OLD, call, exploration=Exploration(1.0)).route("?", key=1, without=["tier3"])
    assert (free.answer, free.cost, free.reasons) == ("tier1", 1.5, ("down",))


def test_a_request_without_an_id_cannot_be_explored() -> None:
    router = Router(OLD, lambda tier, _: Reply(tier), exploration=Exploration(0.1))
    with pytest.raises(ValueError, match="explored by their ids"):
        router.route("?")
    with pytest.raises(ValueError, match="rate is 2"):
        Exploration(2)


def test_the_share_that_is_explored_is_the_rate_and_does_not_depend_on_the_arm() -> None:
    policy, exploration = two_graphs(0.5), Exploration(0.2)
    explored = np.array([exploration.explores(key) for key in range(20_000)])
    high = np.array([policy.arm(key) for key in range(20_000)])
    assert abs(explored.mean() - 0.2) < 4 * np.sqrt(0.16 / 20_000)
    assert abs(explored[high == 1].mean() - explored[high == 0].mean()) < 4 * np.sqrt(0.16 / 5_000)


# Where chances are not logged ----------------------------------------------------------------------------------------


def without_propensities(partial: PartialLog, path: Path) -> Path:
    write_partial_log(partial, path)
    frame = pl.read_parquet(path)
    frame.drop([c for c in frame.columns if c.startswith("propensity")]).write_parquet(path)
    return path


@pytest.mark.parametrize("policy", [OLD, two_graphs()], ids=["one graph", "two graphs"])
def test_the_policy_that_wrote_the_log_gives_its_chances(policy: Policy, tmp_path: Path) -> None:
    partial = observed_by(policy, LOG, Exploration(0.1))
    path = without_propensities(partial, tmp_path / "log.parquet")
    found = read_partial_log(path, logged_by=policy, epsilon=0.1)
    assert found.log.notes == ()
    for name, sighting in partial.answers.items():
        told = found.answers[name].chance
        known = ~np.isnan(told)
        assert known[sighting.seen].all()
        np.testing.assert_allclose(told[known], sighting.chance[known], rtol=1e-12)


def test_a_policy_that_did_not_write_the_log_is_refused(tmp_path: Path) -> None:
    path = without_propensities(observed_by(NEW, LOG), tmp_path / "log.parquet")
    with pytest.raises(LogError, match=r"query 'q\d+' shows 'tier2', as \d+ do, which is not what"):
        read_partial_log(path, logged_by=OLD)


def test_chances_that_are_not_logged_are_guessed_with_a_warning(tmp_path: Path) -> None:
    log = shared_difficulty().draw(20_000, 5)
    path = without_propensities(observed_by(OLD, log, Exploration(0.2)), tmp_path / "log.parquet")
    found = read_partial_log(path)
    assert [note.slug for note in found.log.notes] == ["propensity-not-logged"] * 2
    assert appraise(NEW, found).estimators["dr"].quality.mean == pytest.approx(replay(NEW, log).quality.mean, abs=0.02)


def test_a_log_without_exploration_and_chances_has_an_interval(tmp_path: Path) -> None:
    path = without_propensities(observed_by(OLD, LOG), tmp_path / "log.parquet")
    assert not appraise(NEW, read_partial_log(path)).identified


def called(path: Path, **tiers: np.ndarray) -> PartialLog:
    """The log as it is read where these tiers were called for some queries only, and nothing says why."""
    write_log(LOG, path)
    frame = pl.read_parquet(path)
    own = {c: pl.when(pl.Series(mask)).then(c) for tier, mask in tiers.items() for c in frame.columns if tier in c}
    frame.with_columns(**own).write_parquet(path)
    return read_partial_log(path)


@pytest.mark.parametrize(("first", "second"), [(1, 0), (6, 0), (0, 6), (3, 3), (200, 200)])
def test_calls_that_fail_by_themselves_leave_the_rest_to_stand_for_all(first: int, second: int, tmp_path: Path) -> None:
    """Whatever was seen after whatever else, its inverse chances sum to all queries, and nothing is a gap."""
    rng = np.random.default_rng(first)
    one, two = (rng.permutation(len(LOG)) >= failed for failed in (first, second))
    found = called(tmp_path / "log.parquet", tier1=one, tier2=two)
    for sighting in (*found.answers.values(), found.everything):
        assert (1.0 / sighting.chance[sighting.seen]).sum() == pytest.approx(len(LOG), rel=1e-12)
    assert gaps(found) == []
    assert appraise(NEW, found).identified
    told = {note.cases[0]: note.text for note in found.log.notes if "left out" in note.text}
    for tier in found.log.tiers:
        called_at, used = ~np.isnan(tier.cost), found.answers[tier.name].seen
        unused = int(called_at.sum() - used.sum())
        assert called_at[used].all()
        assert (f"; {unused:,} of them" in told[tier.name]) if unused else tier.name not in told
    assert found.everything.seen.sum() == (one & two).sum()


def test_a_tier_that_is_nearly_always_called_does_not_wait_for_one_that_is_not(tmp_path: Path) -> None:
    """A cheap tier tried beside the dear one that answers: the dear one's quality is that of all its answers."""
    rng = np.random.default_rng(0)
    found = called(tmp_path / "log.parquet", tier1=rng.random(600) < 0.2, tier2=rng.random(600) < 0.99)
    dear = found.answers["tier2"]
    assert dear.seen.tolist() == (~np.isnan(found.log.tiers[1].cost)).tolist()
    assert np.ptp(dear.chance[dear.seen]) == 0.0
    assert tuple(found.answers) == found.log.tier_names
    assert gaps(found) == []


def test_a_full_log_is_a_partial_one(tmp_path: Path) -> None:
    write_log(LOG, tmp_path / "log.parquet")
    partial = read_partial_log(tmp_path / "log.parquet")
    assert partial.log.notes == read_log(tmp_path / "log.parquet").notes
    assert partial.everything.seen.all()
    assert (partial.everything.chance == 1.0).all()


def test_labels_may_be_missing(tmp_path: Path) -> None:
    log = shared_difficulty().draw(20_000, 6)
    labelled = np.random.default_rng(0).random(20_000) < 0.3
    partial = observed_by(OLD, log, Exploration(0.2))
    tiers = tuple(replace(t, correct=np.where(labelled, t.correct, np.nan)) for t in partial.log.tiers)
    partial = replace(partial, log=replace(partial.log, tiers=tiers))
    write_partial_log(partial, tmp_path / "log.parquet")
    frame = pl.read_parquet(tmp_path / "log.parquet")
    frame.with_columns(label_propensity_tier1=pl.lit(0.3)).write_parquet(tmp_path / "log.parquet")
    found = read_partial_log(tmp_path / "log.parquet")
    assert [note.slug for note in found.log.notes] == ["label-propensity-not-logged"] * 2
    quality = appraise(NEW, found).estimators["dr"].quality
    assert quality.mean == pytest.approx(replay(NEW, log).quality.mean, abs=0.03)
    assert quality.low < replay(NEW, log).quality.mean < quality.high


def labelled_where(partial: PartialLog, path: Path, **tiers: np.ndarray) -> PartialLog:
    """The log as it is read where only these answers are labelled, and nothing says why."""
    write_partial_log(partial, path)
    frame = pl.read_parquet(path)
    own = {f"correct_{tier}": pl.when(pl.Series(mask)).then(f"correct_{tier}") for tier, mask in tiers.items()}
    frame.with_columns(**own).drop(c for c in frame.columns if c.startswith("label_")).write_parquet(path)
    return read_partial_log(path)


def shown_by_old(log: ReplayLog) -> dict[str, np.ndarray]:
    """Which answer of each query OLD gives."""
    first, second = (tier.readings[0].confidence for tier in log.tiers[:2])
    return {
        "tier1": first >= 0.4,
        "tier2": (first < 0.4) & (second >= 0.5),
        "tier3": (first < 0.4) & (second < 0.5),
    }


@pytest.mark.parametrize("seed", range(3))
def test_where_only_the_answer_that_was_shown_is_labelled_others_are_not_known(seed: int, tmp_path: Path) -> None:
    log = shared_difficulty().draw(6000, seed)
    shown = shown_by_old(log)
    found = labelled_where(observed_by(OLD, log, Exploration(0.2)), tmp_path / "log.parquet", **shown)
    for name, sighting in found.labels.items():
        there = found.answers[name].seen
        np.testing.assert_array_equal(sighting.chance[there], shown[name][there].astype(float))
    told = {note.cases[0]: note.text for note in found.log.notes}
    assert f"none for {(~shown['tier1']).sum():,}: they count as never tried" in told["tier1"]
    new, old = appraise(NEW, found), appraise(OLD, found)
    assert new.estimators["dr"].quality.mean is None
    assert new.estimators["dr"].quality.low < replay(NEW, log).quality.mean < new.estimators["dr"].quality.high
    assert new.estimators["dr"].cost.mean is not None
    assert old.estimators["dr"].quality.mean == pytest.approx(replay(OLD, log).quality.mean, rel=1e-12)


def test_where_explored_queries_are_labelled_all_over_nothing_is_unknown(tmp_path: Path) -> None:
    """Whether a later tier was called tells that a query was explored, but is no reason for what was right."""
    log, rate = shared_difficulty().draw(12_000, 7), 0.3
    partial = observed_by(OLD, log, Exploration(rate))
    explored = np.array([Exploration(rate).explores(str(query), rate) for query in log.query_ids])
    labelled = {name: explored | mask for name, mask in shown_by_old(log).items()}
    found = labelled_where(partial, tmp_path / "log.parquet", **labelled)
    doubted = ~shown_by_old(log)["tier1"]
    assert found.labels["tier1"].chance[doubted] == pytest.approx(rate, abs=0.03)
    quality = appraise(NEW, found).estimators["dr"].quality
    assert quality.low < replay(NEW, log).quality.mean < quality.high
    assert quality.mean == pytest.approx(replay(NEW, log).quality.mean, abs=0.02)


def test_an_answer_that_a_later_reading_takes_back_is_labelled_by_that(tmp_path: Path) -> None:
    log = shared_difficulty().draw(6000, 8)
    second = log.tiers[1].readings[0].confidence
    shown = shown_by_old(log)
    back = shown["tier3"] & (second < 0.2)
    partial = observed_by(OLD, log)
    masks = {"tier1": shown["tier1"] | back, "tier2": shown["tier2"], "tier3": shown["tier3"] & ~back}
    found = labelled_where(partial, tmp_path / "log.parquet", **masks)
    np.testing.assert_array_equal(found.labels["tier1"].chance, masks["tier1"].astype(float))


def test_of_two_graphs_that_were_drawn_the_one_that_stops_has_the_labels_for_both(tmp_path: Path) -> None:
    log = shared_difficulty().draw(6000, 9)
    partial = observed_by(two_graphs(0.3), log)
    called = partial.answers["tier2"].seen
    first = log.tiers[0].readings[0].confidence
    found = labelled_where(partial, tmp_path / "log.parquet", tier1=~called).labels["tier1"].chance
    assert found[(first >= 0.4) & (first < 0.8)] == pytest.approx(0.7, abs=0.05)
    assert set(found[first < 0.4]) == {0.0}
    assert set(found[first >= 0.8]) == {1.0}


def test_calls_that_do_not_fit_their_propensities_are_warned_of(tmp_path: Path) -> None:
    partial = observed_by(OLD, LOG, Exploration(0.1))
    write_partial_log(partial, tmp_path / "log.parquet")
    frame = pl.read_parquet(tmp_path / "log.parquet")
    odd = frame.with_columns(propensity_tier3=pl.col("propensity_tier3").clip(0.6))
    odd.write_parquet(tmp_path / "log.parquet")
    assert [note.slug for note in read_partial_log(tmp_path / "log.parquet").log.notes] == ["propensity-misfit"]


def test_propensities_that_are_right_in_all_and_wrong_in_places_are_warned_of(tmp_path: Path) -> None:
    log = shared_difficulty().draw(4000, 8)
    path = tmp_path / "log.parquet"
    write_partial_log(observed_by(OLD, log, Exploration(0.2)), path)
    assert read_partial_log(path).log.notes == ()
    frame = pl.read_parquet(path)
    mean = float((~frame["correct_tier2"].is_null()).mean())
    frame.with_columns(propensity_tier2=pl.lit(mean), propensity_tier3=pl.lit(None, float)).drop(
        "propensity_tier3", "conf_tier3", "correct_tier3", "cost_tier3"
    ).write_parquet(path)
    (note,) = read_partial_log(path).log.notes
    assert note.slug == "propensity-misfit"
    assert note.text.startswith("calls of tier2: ")
    assert "where conf of tier1 is in [" in note.text


@pytest.mark.parametrize("told", [0.3, 0.9])
def test_labels_that_do_not_fit_their_propensities_are_warned_of(told: float, tmp_path: Path) -> None:
    log = shared_difficulty().draw(4000, 9)
    first, others = log.tiers[0], log.tiers[1:]
    labelled = np.random.default_rng(1).random(4000) < 0.3
    path = tmp_path / "log.parquet"
    write_partial_log(
        whole(replace(log, tiers=(replace(first, correct=np.where(labelled, first.correct, np.nan)), *others))), path
    )
    pl.read_parquet(path).with_columns(label_propensity_tier1=pl.lit(told)).write_parquet(path)
    texts = [note.text for note in read_partial_log(path).log.notes]
    assert len(texts) == (told == 0.9)
    assert all(text.startswith("labels of tier1: ") for text in texts)


def test_a_cut_that_nobody_crossed_is_never_tried_wherever_it_is(tmp_path: Path) -> None:
    """A row that was called beside many that were not, in the same bin, does not stand for them."""
    first, *others = LOG.tiers
    reading = replace(first.readings[0], confidence=np.random.default_rng(0).random(600))
    log = replace(LOG, tiers=(replace(first, readings=(reading,)), *others))
    between = np.convolve(np.sort(reading.confidence), [0.5, 0.5], "valid")
    for rank in (301, 310, 336, 360, 374):  # a bin has 75
        path = without_propensities(observed_by(chain(float(between[rank]), 0.5), log), tmp_path / "log.parquet")
        found = appraise(chain(float(between[rank + 12]), 0.5), read_partial_log(path))
        assert not found.identified
        (row,) = (of for of in found.support if of.wanted == "tier2")
        assert row.untried == pytest.approx(12 / 600, abs=1e-12)


def test_a_reading_that_was_bought_for_some_is_not_guessed_from_itself(tmp_path: Path) -> None:
    log = shared_difficulty(2, 2, reading_prices=(0.0, 0.3)).draw(3000, 2)
    bought = np.random.default_rng(3).random(3000) < 0.25
    path = tmp_path / "log.parquet"
    write_log(log, path)
    hidden = {name: pl.when(pl.Series(bought)).then(name) for name in ("conf2_tier1", "verify_cost2_tier1")}
    frame = pl.read_parquet(path)
    frame.with_columns(**{name: of for name, of in hidden.items() if name in frame.columns}).write_parquet(path)
    sighting = read_partial_log(path).readings["tier1", "conf2"]
    assert sighting.seen.tolist() == bought.tolist()
    assert sighting.chance[bought].mean() == pytest.approx(0.25, abs=0.03)
    assert np.isnan(sighting.chance[~bought]).all()  # what it would have been there nobody knows


def test_where_a_judge_was_never_asked_its_reading_has_no_chance(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    write_log(LOG, path)
    doubted = LOG.tiers[0].readings[0].confidence < 0.5
    rng = np.random.default_rng(1)
    judge = {"conf_judge": rng.random(len(LOG)), "cost_judge": np.full(len(LOG), 0.2)}
    shown = {name: pl.when(pl.Series(doubted)).then(pl.Series(values)) for name, values in judge.items()}
    pl.read_parquet(path).with_columns(**shown).write_parquet(path)
    sighting = read_partial_log(path, signals={"judge": ("tier1",)}).readings["judge", "conf"]
    assert sighting.seen.tolist() == doubted.tolist()
    assert sighting.chance.tolist() == doubted.astype(float).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"propensity_tier2": 1.5}, "propensity_tier2 is 1.5, no probability"),
        ({"propensity_tier1": None}, "the propensity of tier1 is missing or 0 for query 'q000001'"),
        ({"cost_tier1": None}, "'tier1' answered query 'q000001' at no price"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, float | None], message: str, tmp_path: Path) -> None:
    write_partial_log(observed_by(OLD, LOG), tmp_path / "log.parquet")
    frame = pl.read_parquet(tmp_path / "log.parquet")
    (column, value), *_ = change.items()
    first = pl.int_range(pl.len()) == 0
    frame.with_columns(pl.when(first).then(value).otherwise(pl.col(column)).alias(column)).write_parquet(
        tmp_path / "log.parquet"
    )
    with pytest.raises(LogError, match=message):
        read_partial_log(tmp_path / "log.parquet")


def test_labels_that_are_there_twice_or_not_at_all_are_refused(tmp_path: Path) -> None:
    rows, _ = routed(OLD, LOG.take(np.arange(5)), tmp_path, Exploration(0.0))
    labels = labels_of(LOG)
    with pytest.raises(LogError, match="'tier1' of query 'q000001' twice, and they differ"):
        join_labels(rows, pl.concat([labels, labels.with_columns(correct=1.0 - pl.col("correct"))]))
    with pytest.raises(LogError, match="no column 'correct'"):
        join_labels(rows, labels.drop("correct"))


def test_a_label_that_is_said_again_is_one_and_an_empty_one_is_none(tmp_path: Path) -> None:
    rows, _ = routed(OLD, LOG.take(np.arange(50)), tmp_path, Exploration(0.3))
    labels = labels_of(LOG).with_columns(label_propensity=pl.lit(0.5))
    later = pl.int_range(pl.len()) % 3 == 0
    empty = labels.with_columns(correct=pl.lit(None, pl.Float64))
    expected = join_labels(rows, labels)
    assert join_labels(rows, pl.concat([labels, labels])).equals(expected)
    assert join_labels(rows, pl.concat([empty, labels, empty.with_columns(label_propensity=None)])).equals(expected)
    assert join_labels(rows, pl.concat([empty, labels.filter(later)])).equals(
        join_labels(rows, labels.with_columns(correct=pl.when(later).then("correct")))
    )


def test_replay_on_the_command_line_says_what_the_library_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    partial = observed_by(OLD, LOG, Exploration(0.2))
    write_partial_log(partial, tmp_path / "log.parquet")
    save_policy(NEW, tmp_path / "new.json")
    save_policy(OLD, tmp_path / "old.json")
    assert main(["replay", str(tmp_path / "new.json"), str(tmp_path / "log.parquet"), "--partial", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    found = appraise(NEW, partial)
    assert said["estimators"]["dr"]["quality"]["mean"] == found.estimators["dr"].quality.mean
    assert said["identified"] is True
    path = without_propensities(observed_by(OLD, LOG), tmp_path / "bare.parquet")
    command = ["replay", str(tmp_path / "new.json"), str(path), "--partial", "--logged-by", str(tmp_path / "old.json")]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert "doubly robust" in text
    assert "not identified" in text
    assert "unknown" in text
    assert main(["replay", str(tmp_path / "new.json"), str(path)]) == 1
    assert "--partial" in capsys.readouterr().err


def test_simulate_writes_what_a_router_would_see(tmp_path: Path) -> None:
    save_policy(chain(0.4, 0.5), tmp_path / "old.json")
    out = tmp_path / "log.parquet"
    command = ["simulate", "shared_difficulty", "-n", "600", "--seed", "4", "-o", str(out)]
    assert main([*command, "--seen-by", str(tmp_path / "old.json"), "--epsilon", "0.1"]) == 0
    same(read_partial_log(out), observed_by(OLD, LOG, Exploration(0.1)))
