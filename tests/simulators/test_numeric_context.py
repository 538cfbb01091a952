"""A number known before a call is a context: cut at the log's quantiles, or at a policy's, the same in every place."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from metaverify.fitting.fit import fit
from metaverify.policies.actions import Accept, Call, Verify
from metaverify.policies.file import load_policy, save_policy
from metaverify.policies.policy import Policy
from metaverify.simulators.counting import count
from metaverify.simulators.inspection import inspect_log, render
from metaverify.simulators.log import LogError, ReplayLog, fingerprint
from metaverify.simulators.outcome import replay
from metaverify.simulators.reader import log_columns, read_log, write_log
from metaverify.simulators.replay import arms, route

CONTEXT = ("dataset", "tokens:4")


def frame(rows: int, seed: int, *, scale: float = 300.0, missing: float = 0.1) -> pl.DataFrame:
    """Queries of two data sets; the small tier fails on long prompts, which its confidence does not show."""
    rng = np.random.default_rng(seed)
    tokens = np.ceil(rng.exponential(scale, rows))
    right = rng.random(rows) < np.where(tokens < scale / 2, 0.9, 0.3)
    known = np.where(rng.random(rows) < missing, np.nan, tokens)
    return pl.DataFrame(
        {
            "query_id": [f"q{seed}-{row:04d}" for row in range(rows)],
            "dataset": rng.choice(["qa", "a/b"], rows),
            "tokens": pl.Series(known).fill_nan(None),
            "weight": rng.integers(1, 4, rows).astype(float),
            "conf_small": np.round(0.5 + 0.2 * right + 0.3 * rng.random(rows), 2),
            "correct_small": right.astype(int),
            "cost_small": np.ones(rows),
            "correct_large": (rng.random(rows) < 0.9).astype(int),
            "cost_large": np.full(rows, 10.0),
        }
    )


def written(folder: Path, table: pl.DataFrame, name: str = "log.parquet") -> Path:
    path = folder / name
    {".parquet": table.write_parquet, ".csv": table.write_csv, ".jsonl": table.write_ndjson}[path.suffix](path)
    return path


def plain_label(name: str, cuts: tuple[float, ...], value: float | None) -> str:
    if value is None:
        return f"{name} missing"
    if value < cuts[0]:
        return f"{name}<{cuts[0]:g}"
    for low, high in pairwise(cuts):
        if low <= value < high:
            return f"{low:g}<={name}<{high:g}"
    return f"{name}>={cuts[-1]:g}"


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_labels_are_those_of_a_plain_loop(tmp_path: Path, suffix: str) -> None:
    table = frame(300, 1)
    log = read_log(written(tmp_path, table, f"log{suffix}"), context=CONTEXT)
    cuts = log.context_cuts["tokens"]
    expected = [
        f"{dataset.replace('/', chr(92) + '/')}/{plain_label('tokens', cuts, tokens)}"
        for dataset, tokens in table.select("dataset", "tokens").iter_rows()
    ]
    assert log.contexts is not None
    assert log.contexts.tolist() == expected
    assert log.context_names == ("dataset", "tokens")


def test_cuts_divide_the_weight_of_the_log_evenly_and_are_whole_numbers(tmp_path: Path) -> None:
    table = frame(900, 2)
    log = read_log(written(tmp_path, table), context="tokens:4")
    assert log.contexts is not None
    known = table.filter(pl.col("tokens").is_not_null())
    shares = [log.total((log.contexts == label).astype(float)) for label in sorted(set(log.contexts))]
    total = float(known["weight"].sum())
    assert sorted(shares)[1:] == pytest.approx([total / 4] * 4, rel=0.05)  # the smallest are the missing ones
    assert len(log.context_cuts["tokens"]) == 3
    assert all(low < high for low, high in pairwise(log.context_cuts["tokens"]))


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    table = frame(300, 3)
    log = read_log(written(tmp_path, table), context=CONTEXT)
    order = np.random.default_rng(0).permutation(300).tolist()
    shuffled = read_log(written(tmp_path, table[order], "other.parquet"), context=CONTEXT)
    assert shuffled.context_cuts == log.context_cuts
    assert fingerprint(shuffled) == fingerprint(log)


def test_ties_leave_fewer_intervals_than_were_asked_for(tmp_path: Path) -> None:
    table = frame(60, 4, missing=0.0).with_columns(tokens=pl.Series([1, 2, 3] * 20))
    log = read_log(written(tmp_path, table), context="tokens:9")
    assert log.context_cuts == {"tokens": (1.5, 2.5)}
    assert log.contexts is not None
    assert set(log.contexts) == {"tokens<1.5", "1.5<=tokens<2.5", "tokens>=2.5"}


def test_what_is_not_finite_is_missing(tmp_path: Path) -> None:
    table = frame(60, 5).with_columns(tokens=pl.Series([1.0, math.nan, math.inf, 9.0, -math.inf, None] * 10))
    log = read_log(written(tmp_path, table), context="tokens:2")
    assert log.contexts is not None
    assert log.contexts[:6].tolist() == ["tokens<5", *["tokens missing"] * 2, "tokens>=5", *["tokens missing"] * 2]


def test_the_long_form_has_one_number_a_query(tmp_path: Path) -> None:
    rows = [("a", "small", 7), ("a", "large", 7), ("b", "small", None), ("b", "large", None), ("c", "small", 20)]
    rows += [("c", "large", 20)]
    text = "query_id,tier,correct,cost,tokens\n" + "".join(f"{q},{t},1,1,{n or ''}\n" for q, t, n in rows)
    path = tmp_path / "long.csv"
    path.write_text(text)
    log = read_log(path, context="tokens:2")
    assert log.contexts is not None
    assert log.contexts.tolist() == ["tokens<14", "tokens missing", "tokens>=14"]
    path.write_text(text.replace("c,large,1,1,20", "c,large,1,1,21"))
    with pytest.raises(LogError, match=r"row 6: tokens is 21, but an earlier row of the query says otherwise"):
        read_log(path, context="tokens:2")


def test_a_column_whose_own_name_has_a_colon_is_told_as_it_stands(tmp_path: Path) -> None:
    path = written(tmp_path, frame(60, 6).rename({"dataset": "set:2"}))
    log = read_log(path, context=("set:2", "tokens:2"))
    assert (log.context_names, list(log.context_cuts)) == (("set:2", "tokens"), ["tokens"])
    assert log_columns(path, context=("set:2", "tokens:2")).keys.bins == {"tokens": 2}


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ("tokens:0", "--context tokens:0 is no number of bins; write it as column:bins with 2 to 100 bins"),
        ("tokens:1", "--context tokens:1 is no number of bins"),
        ("tokens:x", "--context tokens:x is no number of bins"),
        ("tokens:", "--context tokens: is no number of bins"),
        ("tokens:-3", "--context tokens:-3 is no number of bins"),
        ("tokens:2.5", "--context tokens:2.5 is no number of bins"),
        ("tokens:101", "--context tokens:101 is no number of bins"),
        ("tokens:²", "--context tokens:² is no number of bins"),
        ("token:4", "has no column 'token' for --context; did you mean 'tokens'?"),
        (":4", "has no column '' for --context"),
        (("tokens", "tokens:4"), "--context names 'tokens' twice"),
        ("dataset:4", "row 1: dataset is 'qa', not a number; give numbers, or --context dataset without bins"),
        ("cost_small:4", "cost_small has no two different numbers to cut between; leave it out"),
    ],
)
def test_what_cannot_be_cut_is_said_in_words(tmp_path: Path, context: Any, words: str) -> None:
    path = written(tmp_path, frame(30, 7).with_columns(dataset=pl.lit("qa")))
    with pytest.raises(LogError) as caught:
        read_log(path, context=context)
    assert words in str(caught.value)


def test_a_column_that_is_missing_everywhere_cannot_be_cut(tmp_path: Path) -> None:
    path = written(tmp_path, frame(30, 8).with_columns(tokens=pl.lit(None)))
    with pytest.raises(LogError, match="tokens has no two different numbers"):
        read_log(path, context="tokens:4")


@pytest.mark.parametrize("cuts", [(), (2.0, 1.0), (1.0, 1.0), (math.nan,), (math.inf,), (1.0, math.nan)])
def test_given_cuts_must_rise_and_be_finite(tmp_path: Path, cuts: tuple[float, ...]) -> None:
    with pytest.raises(LogError, match="give finite numbers that rise"):
        read_log(written(tmp_path, frame(30, 9)), context="tokens", context_cuts={"tokens": cuts})
    with pytest.raises(LogError, match="give finite numbers that rise"):
        count(frame(30, 9).lazy(), context="tokens", context_cuts={"tokens": cuts})


def test_given_cuts_are_of_context_columns(tmp_path: Path) -> None:
    words = "context_cuts of 'token', which is no context column; there are tokens"
    with pytest.raises(LogError, match=words):
        read_log(written(tmp_path, frame(30, 9)), context="tokens:2", context_cuts={"token": (1.0,)})
    with pytest.raises(LogError, match=words):
        count(frame(30, 9).lazy(), context="tokens:2", context_cuts={"token": (1.0,)})


def test_given_cuts_win_over_the_logs_own(tmp_path: Path) -> None:
    path = written(tmp_path, frame(90, 10))
    one, other = (read_log(path, context=c, context_cuts={"tokens": (5, 77)}) for c in ("tokens", "tokens:9"))
    assert one.context_cuts == other.context_cuts == {"tokens": (5.0, 77.0)}
    assert fingerprint(one) == fingerprint(other)


def test_a_number_on_a_cut_is_above_it(tmp_path: Path) -> None:
    path = written(tmp_path, frame(6, 10).with_columns(tokens=pl.Series([4, 5, 6, 76, 77, 78])))
    log = read_log(path, context="tokens", context_cuts={"tokens": (5, 77)})
    assert log.contexts is not None
    assert log.contexts.tolist() == [plain_label("tokens", (5.0, 77.0), n) for n in (4, 5, 6, 76, 77, 78)]
    assert log.contexts[[1, 4]].tolist() == ["5<=tokens<77", "tokens>=77"]


def test_cuts_stay_with_a_log_and_go_with_its_contexts(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, frame(90, 11)), context="tokens:3")
    parts = [*log.split(0.5), log.by_id(), log.take(np.arange(5)), log.with_tiers(["small"])]
    assert all(part.context_cuts == log.context_cuts for part in parts)
    assert log.without_contexts().context_cuts == {}


def test_intervals_are_written_as_labels(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, frame(90, 12)), context=CONTEXT)
    write_log(log, tmp_path / "again.csv")
    again = read_log(tmp_path / "again.csv", context="context")
    assert log.contexts is not None
    assert again.contexts is not None
    assert again.contexts.tolist() == log.contexts.tolist()


def test_an_inspection_has_a_line_for_each_interval(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, frame(200, 13)), context="tokens:2")
    text, cut = render(inspect_log(log)), log.context_cuts["tokens"][0]
    for label in (f"tokens<{cut:g}", f"tokens>={cut:g}", "tokens missing"):
        assert f" {label} " in text


# The whole road -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, Path, pl.DataFrame]:
    """A policy from its file, and another log than its own, whose prompts are longer."""
    folder = tmp_path_factory.mktemp("road")
    fitted = fit(read_log(written(folder, frame(500, 14)), context=CONTEXT), budget=5.0, folds=2)
    save_policy(fitted.policy, folder / "policy.json")
    table = frame(250, 15, scale=500.0)
    return load_policy(folder / "policy.json"), written(folder, table, "other.parquet"), table


def other_log(road: tuple[Policy, Path, pl.DataFrame]) -> ReplayLog:
    policy, path, _ = road
    return read_log(path, context=policy.context, context_cuts=policy.context_cuts)


def test_a_fitted_policy_has_the_cuts_of_its_log_and_uses_them(road: tuple[Policy, Path, pl.DataFrame]) -> None:
    policy = road[0]
    assert policy.context == ("dataset", "tokens")
    assert len(policy.context_cuts["tokens"]) == 3
    dial = policy.at(price=0.03)
    for tokens, action in ((3, Accept("small")), (5000, Call("large"))):  # right with 0.9, with 0.3
        assert dial.decide({"small": 0.75}, context={"dataset": "qa", "tokens": tokens}) == action


def test_a_loop_over_decide_does_with_every_row_what_replay_does(road: tuple[Policy, Path, pl.DataFrame]) -> None:
    policy, _, table = road
    log = other_log(road)
    vertices = arms(policy, log)
    routes = {at: routed_at(policy, log, at) for at in set(vertices.tolist())}
    for at, row in enumerate(table.iter_rows(named=True)):
        readings: dict[str, Any] = {}
        cost, context = 0.0, {"dataset": row["dataset"], "tokens": row["tokens"]}
        while not isinstance(action := policy.decide(readings, context=context, key=row["query_id"]), Accept):
            assert isinstance(action, Call | Verify)
            cost += row[f"cost_{action.tier}"] if isinstance(action, Call) else 0.0
            readings[action.tier] = {"conf": row["conf_small"]} if action.tier == "small" else {}
        quality, spent = routes[int(vertices[at])]
        assert (row[f"correct_{action.tier}"], cost) == (quality[at], spent[at])


def routed_at(policy: Policy, log: ReplayLog, vertex: int) -> tuple[np.ndarray, np.ndarray]:
    routes = route(policy, log, vertex)
    return routes.quality, routes.cost


def test_a_log_that_is_cut_elsewhere_is_not_replayed(road: tuple[Policy, Path, pl.DataFrame]) -> None:
    policy, path, _ = road
    for context in (CONTEXT, ("dataset", "tokens")):
        with pytest.raises(LogError, match=r"the policy cuts 'tokens' at .*context_cuts=policy\.context_cuts"):
            replay(policy, read_log(path, context=context))
    with pytest.raises(LogError, match="decides by context"):
        replay(policy, read_log(path))


def test_contexts_that_are_labels_already_are_replayed_as_they_stand(
    road: tuple[Policy, Path, pl.DataFrame], tmp_path: Path
) -> None:
    policy, log = road[0], other_log(road)
    write_log(log, tmp_path / "labels.parquet")
    labelled = replay(policy, read_log(tmp_path / "labels.parquet", context="context"))
    assert labelled.to_json() == replay(policy, log).to_json()


def test_a_fit_does_not_depend_on_the_order_of_rows(tmp_path: Path) -> None:
    table = frame(200, 16)
    order = np.random.default_rng(1).permutation(200).tolist()
    files = (written(tmp_path, table, "one.parquet"), written(tmp_path, table[order], "two.parquet"))
    one, two = (fit(read_log(file, context="tokens:2"), budget=4.0, folds=2, compare=False) for file in files)
    assert json.dumps(one.to_json()) == json.dumps(two.to_json())
    assert one.policy == two.policy
