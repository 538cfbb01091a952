"""Thresholds tuned with Optuna: against the exact sweep, killed and resumed, on several back ends, interrupted."""

from __future__ import annotations

import itertools
import os
import pickle
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from joblib import parallel_config
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler

from metaverify import load_digits_log
from metaverify.cli import main
from metaverify.fitting.chain_space import ChainSpace
from metaverify.fitting.crossfit import calibrate, cross_fit
from metaverify.fitting.fit import fit
from metaverify.fitting.sweep import coarse_sweep, sweep
from metaverify.fitting.tuned import LEARNERS, TunedChains, Watch
from metaverify.fitting.windows import ChainLog, WindowChain
from metaverify.policies.file import dump_policy, load_policy
from metaverify.simulators.outcome import replay
from metaverify.simulators.reader import read_log, write_log
from tests.fitting.oracles import curve_at, upper_hull
from tests.strategies import random_log

POINT = 0.01
DIGITS = load_digits_log().with_readings(["conf"])
SMALL = random_log(120, 0, readings=("free", "paid", ""))
SEARCH = TunedChains(budget=6.0, trials=30, batch=5, exact=0)


def nsga(seed: int) -> BaseSampler:
    return NSGAIISampler(seed=seed)


def uniform(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


def trials(study: optuna.Study) -> list[tuple[dict, list[float], dict, dict]]:
    """What there is to a study's trials but the time of day."""
    return [(t.params, t.values, t.user_attrs, t.constraints) for t in study.trials]


# ------------------------------------------------------------------------------------------- the exact sweep as oracle


@pytest.mark.parametrize(
    ("tiers", "cuts", "share"),
    [
        ("small medium", 2, 0.15),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in itertools.product(
                ["small medium", "small large", "tiny small medium"], [1, 2], [0.05, 0.2, 0.5]
            )
            if case[:2] != ("tiny small medium", 2)
        ),
    ],
)
def test_two_hundred_trials_come_within_a_tenth_of_a_point_of_every_chain(tiers: str, cuts: int, share: float) -> None:
    log = DIGITS.with_tiers(tiers.split())
    best = upper_hull([(chain.cost, chain.quality) for chain in sweep(ChainLog(log), cuts)])
    budget = best[0][0] + share * (best[-1][0] - best[0][0])
    found = upper_hull([(v.cost, v.quality) for v in TunedChains(budget, cuts=cuts, exact=0).tried(log)])
    assert -1e-9 < curve_at(best, budget) - curve_at(found, budget) < 0.1 * POINT


def test_the_search_betters_what_it_starts_from() -> None:
    log = DIGITS.with_tiers(["tiny", "small", "medium", "large"])
    learner = TunedChains(budget=2.0, trials=120, exact=0)
    tried = learner.tried(log)
    starts = upper_hull([(v.cost, v.quality) for v in tried[:20]])
    assert curve_at(upper_hull([(v.cost, v.quality) for v in tried]), 2.0) > curve_at(starts, 2.0) + 1e-4


def test_where_chains_are_few_all_of_them_are_compared_and_no_trial_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TunedChains, "study", lambda *_: pytest.fail("a study was made"))
    policy = TunedChains(cuts=2, gap=0.0).policy(SMALL.with_tiers(["tier0", "tier2"]))
    best = sweep(ChainLog(SMALL.with_tiers(["tier0", "tier2"])), 2)
    assert [(v.cost, v.quality) for v in policy.vertices] == [(chain.cost, chain.quality) for chain in best]


# ---------------------------------------------------------------------------------------------------- space and trials


@pytest.mark.parametrize("cuts", [1, 2])
def test_the_parameters_of_a_chain_suggest_that_chain(cuts: int) -> None:
    rows = ChainLog(random_log(150, 1, readings=("free", "paid", "free", ""), weighted=True))
    space = ChainSpace(rows, cuts)
    for value in coarse_sweep(rows, cuts, 20_000):
        assert space.chain(optuna.trial.FixedTrial(dict(space.params(value.chain)))) == value.chain


def test_a_trial_says_what_its_chain_costs_and_earns_and_is_feasible_within_the_budget() -> None:
    learner, rows = SEARCH, ChainLog(SMALL)
    study = learner.study(SMALL)
    assert len(study.trials) == 30
    space = ChainSpace(rows, 1)
    for trial in study.trials:
        value = rows.value(space.chain(trial))
        assert trial.value == trial.user_attrs["quality"] == pytest.approx(value.quality, abs=1e-12)
        assert trial.constraints["budget"] == pytest.approx(value.cost - 6.0, abs=1e-12)
    feasible = [t for t in study.trials if t.user_attrs["cost"] <= 6.0]
    assert study.best_trial.value == max(t.value for t in feasible)


def test_without_a_budget_trials_have_two_objectives() -> None:
    study = replace(SEARCH, budget=None).study(SMALL)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert all(t.values == [t.user_attrs["quality"], t.user_attrs["cost"]] for t in study.trials)


def test_trials_begin_with_every_fixed_tier_so_the_policy_is_not_below_their_hull() -> None:
    policy = SEARCH.policy(SMALL)
    assert [t.params["tier 1"] for t in SEARCH.study(SMALL).trials[:3]] == ["tier0", "tier1", "tier2"]
    for tier in SMALL.tiers:
        assert policy.at(budget=SMALL.mean(tier.cost)).expected_quality > SMALL.mean(tier.correct) - 1e-9


def test_the_policy_mixes_trials_and_earns_on_its_log_what_it_expects() -> None:
    policy = SEARCH.policy(SMALL, near=6.0).at(budget=6.0)
    points = upper_hull([(v.cost, v.quality) for v in SEARCH.tried(SMALL)])
    assert policy.expected_quality == pytest.approx(curve_at(points, 6.0), abs=1e-9)
    outcome = replay(policy, SMALL)
    assert (outcome.cost.mean, outcome.quality.mean) == pytest.approx((6.0, policy.expected_quality), abs=1e-9)


def test_row_order_does_not_matter_and_the_seed_does() -> None:
    shuffled = SMALL.take(np.random.default_rng(0).permutation(len(SMALL)))
    chains = [v.chain for v in SEARCH.tried(SMALL)]
    assert [v.chain for v in SEARCH.tried(shuffled)] == chains
    assert [v.chain for v in replace(SEARCH, seed=1).tried(SMALL)] != chains


# ------------------------------------------------------------------------------------------------------------ back ends


@pytest.mark.parametrize("sampler", [TunedChains().sampler, nsga, uniform])
@pytest.mark.parametrize("budget", [None, 6.0])
def test_trials_are_the_same_in_threads_in_processes_and_one_after_another(sampler, budget: float | None) -> None:
    learner = replace(SEARCH, budget=budget, sampler=sampler)
    alone = trials(learner.study(SMALL))
    for backend in ("threading", "loky"):
        with parallel_config(backend=backend, n_jobs=2):
            assert trials(learner.study(SMALL)) == alone


def test_trials_are_the_same_on_dask() -> None:
    distributed = pytest.importorskip("distributed", reason="dask is not installed: pip install 'dask[distributed]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.Client(processes=False, n_workers=1, dashboard_address=None), parallel_config("dask"):
            found = trials(SEARCH.study(SMALL))
    assert found == trials(SEARCH.study(SMALL))


# ---------------------------------------------------------------------------------------------------- storage, resuming

KILLED = """
import os, signal, sys
from metaverify.fitting.tuned import TunedChains, Watch
from metaverify.simulators.reader import read_log

def tell(done, wanted):
    if done == 13:
        os.kill(os.getpid(), signal.SIGKILL)

learner = TunedChains(6.0, trials=30, batch=5, exact=0, storage=sys.argv[2], watch=Watch(tell))
learner.study(read_log(sys.argv[1]))
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize("name", ["study.log", pytest.param("study.db", marks=pytest.mark.slow)])
def test_a_killed_search_goes_on_with_every_trial_that_was_finished(tmp_path: Path, name: str) -> None:
    path, where = tmp_path / "log.csv", str(tmp_path / name)
    write_log(SMALL, path)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path), where], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    log, told = read_log(path), []
    learner = replace(SEARCH, storage=where, watch=Watch(lambda done, wanted: told.append((done, wanted))))
    study = learner.study(log)
    assert told == [(done, 30) for done in range(14, 31)]
    assert len(study.trials) == 30
    assert trials(study)[:13] == trials(SEARCH.study(log))[:13]
    told.clear()
    assert trials(learner.study(log)) == trials(study)
    assert told == []  # nothing is left to do
    assert len(replace(learner, trials=35).study(log).trials) == 35
    assert told == [(done, 35) for done in range(31, 36)]


def test_each_fold_has_a_study_of_its_own(tmp_path: Path) -> None:
    where = str(tmp_path / "study.log")
    learner = replace(SEARCH, trials=10, storage=where)
    crossed = cross_fit(learner, SMALL, folds=3)
    policy, _ = calibrate(learner.policy(SMALL), crossed)
    names = optuna.get_all_study_names(storage=_journal(where))
    assert len(names) == 4
    assert all(len(optuna.load_study(study_name=n, storage=_journal(where)).trials) == 10 for n in names)
    again, _ = calibrate(learner.policy(SMALL), cross_fit(learner, SMALL, folds=3))
    assert dump_policy(again) == dump_policy(policy)
    assert all(len(optuna.load_study(study_name=n, storage=_journal(where)).trials) == 10 for n in names)


def _journal(where: str) -> optuna.storages.BaseStorage:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(where))


def test_options_that_change_the_trials_begin_another_study(tmp_path: Path) -> None:
    where = str(tmp_path / "study.log")
    learner = replace(SEARCH, trials=2, storage=where)
    others = [{"seed": 1}, {"cuts": 2}, {"budget": 7.0}, {"budget": None}, {"batch": 2}, {"sampler": uniform}]
    for change in ({}, *others):
        replace(learner, **change).study(SMALL)
    learner.study(SMALL.take(np.arange(60)))
    assert len(optuna.get_all_study_names(storage=_journal(where))) == 2 + len(others)


def test_a_journal_whose_last_line_was_torn_goes_on_without_it(tmp_path: Path) -> None:
    where = tmp_path / "study.log"
    learner = replace(SEARCH, trials=10, storage=str(where))
    whole = trials(learner.study(SMALL))
    where.write_bytes(where.read_bytes()[:-30])
    again = trials(learner.study(SMALL))
    assert again == whole


@pytest.mark.parametrize("name", ["study.log", "study.db"])
@pytest.mark.parametrize("at", [4, 10, 17])
def test_a_study_that_was_broken_off_ends_as_if_it_had_not_been(tmp_path: Path, name: str, at: int) -> None:
    learner = replace(SEARCH, storage=str(tmp_path / name))
    learner_until = replace(learner, watch=interrupting(at))
    assert len(learner_until.tried(SMALL)) == at
    assert trials(learner.study(SMALL)) == trials(SEARCH.study(SMALL))
    assert trials(learner.study(SMALL)) == trials(SEARCH.study(SMALL))  # and nothing is stored twice


@pytest.mark.parametrize("name", ["notes.txt", "notes.db"])
def test_a_file_of_another_kind_is_refused_and_left_as_it_was(tmp_path: Path, name: str) -> None:
    where = tmp_path / name
    where.write_text("what I wanted to remember")
    with pytest.raises(ValueError, match=rf"{name} is there and is no .*; name another file"):
        replace(SEARCH, storage=str(where)).study(SMALL)
    assert where.read_text() == "what I wanted to remember"


# ----------------------------------------------------------------------------------------------------------- interrupts


def interrupting(at: int) -> Watch:
    def tell(done: int, wanted: int) -> None:
        if done == at and wanted == 30:
            raise KeyboardInterrupt

    return Watch(tell)


def test_an_interrupt_keeps_what_was_found_and_later_studies_stop_at_as_many_trials() -> None:
    learner = replace(SEARCH, watch=interrupting(12))
    first = learner.study(SMALL)
    assert len([t for t in first.trials if t.values is not None]) == 12
    later = learner.study(SMALL.take(np.arange(80)))
    assert len(later.trials) == 12
    assert learner.describe()["options"]["trials"] == 12
    assert [v.chain for v in learner.tried(SMALL)] == [v.chain for v in SEARCH.tried(SMALL)[:12]]


def test_a_fit_that_is_interrupted_ends_with_the_best_so_far() -> None:
    learner = replace(SEARCH, watch=interrupting(7))
    fitted = fit(SMALL, budget=6.0, learner=learner, folds=3)
    assert fitted.policy.provenance["options"]["trials"] == 7


def test_an_interrupt_before_the_first_trial_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TunedChains, "_batch", stop)
    with pytest.raises(KeyboardInterrupt):
        SEARCH.study(SMALL)


def test_a_watch_in_another_process_is_silent() -> None:
    watch = interrupting(1)
    watch.most = 3
    other = pickle.loads(pickle.dumps(watch))
    assert other.most is None
    assert other.tell(1, 30) is None


# ------------------------------------------------------------------------------------------------ options, command line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": -1.0}, "budget -1.0 is not"),
        ({"budget": float("nan")}, "budget nan is not"),
        ({"trials": 0}, "trials is 0; give at least 1"),
        ({"batch": 0}, "batch is 0; give at least 1"),
        ({"cuts": 3}, "cuts is 3; a tier that is read has 1 or 2"),
    ],
)
def test_options_that_are_none_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TunedChains(**options)


def test_it_is_known_as_optuna() -> None:
    assert LEARNERS["optuna"]().describe()["method"] == "optuna"


@pytest.mark.parametrize("budget", [0.001, 1e6])
def test_a_budget_that_no_chain_keeps_or_every_one_does_is_searched_all_the_same(budget: float) -> None:
    policy = replace(SEARCH, budget=budget).policy(SMALL)
    assert policy.vertices[0].cost == pytest.approx(1.0)


def test_a_log_without_readings_has_fixed_tiers_only() -> None:
    log = SMALL.with_readings(())
    assert {v.chain for v in SEARCH.tried(log)} == {WindowChain((name,)) for name in log.tier_names}


def test_fit_with_optuna_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out, where = (str(tmp_path / name) for name in ("log.csv", "policy.json", "study.log"))
    write_log(SMALL, path)
    tuning = ["--method", "optuna", "--trials", "12", "--cuts", "2", "--storage", where, "--folds", "2"]
    assert main(["fit", path, "--budget", "6", *tuning, "-o", out]) == 0
    policy = load_policy(out)
    assert policy.provenance["method"] == "optuna"
    assert policy.provenance["options"]["trials"] == 12
    assert len(optuna.get_all_study_names(storage=_journal(where))) == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("option", [("--trials", "5"), ("--cuts", "2"), ("--storage", "s.log")])
def test_its_options_go_with_no_other_method(tmp_path: Path, capsys: pytest.CaptureFixture[str], option) -> None:
    path = str(tmp_path / "log.csv")
    write_log(SMALL, path)
    assert main(["fit", path, "--budget", "6", *option]) == 1
    assert f"{option[0]} goes with --method optuna" in capsys.readouterr().err


def test_the_command_line_says_that_a_search_was_interrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "log.csv")
    write_log(SMALL, path)
    monkeypatch.setattr("metaverify.fitting.tuned.Watch", lambda _: interrupting(4))
    tuning = ["--method", "optuna", "--trials", "30", "--storage", str(tmp_path / "study.log")]
    assert main(["fit", path, "--budget", "6", *tuning, "--folds", "2"]) == 0
    assert "interrupted; kept the best of 4 trials a study" in capsys.readouterr().err


@pytest.mark.slow
def test_on_new_queries_a_calibrated_search_spends_its_budget_on_average() -> None:
    over = []
    for seed in range(6):
        known, unseen = DIGITS.with_tiers(["tiny", "small", "medium"]).split(0.5, seed=seed)
        learner = TunedChains(budget=2.0, trials=40, exact=0, seed=seed)
        policy, _ = calibrate(learner.policy(known), cross_fit(learner, known))
        over.append(replay(policy.at(budget=2.0), unseen).cost.mean / 2.0 - 1.0)
    error = np.std(over, ddof=1) / np.sqrt(len(over))
    assert np.mean(over) < 0.01 + 2 * error
