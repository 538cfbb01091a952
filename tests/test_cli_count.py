"""`metaverify count` writes what every other command takes for a log, and adds up what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from metaverify import compare, fit, inspect_log, replay
from metaverify.cli import main
from metaverify.commands.simulate import piece_name
from metaverify.policies.file import load_policy
from metaverify.simulators.counts import load_counts
from metaverify.simulators.reader import read_log


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files of one log, counted."""
    found = tmp_path_factory.mktemp("counts")
    argv = ["simulate", "token_prices", "-n", "900", "--pieces", "3", "--tiers", "2", "--levels", "40"]
    assert main([*argv, "-o", str(found / "log.parquet")]) == 0
    assert main(["count", str(found / "log-*.parquet"), "-o", str(found / "counts.parquet")]) == 0
    return found


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = main([str(arg) for arg in argv])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_pieces_are_one_log_of_distinct_queries(folder: Path) -> None:
    logs = [read_log(piece_name(str(folder / "log.parquet"), at)) for at in (1, 2, 3)]
    assert [len(log) for log in logs] == [300, 300, 300]
    assert len({query for log in logs for query in log.query_ids}) == 900
    assert logs[0].tiers[0].cost.mean() != logs[1].tiers[0].cost.mean()


def test_the_same_seed_draws_the_same_pieces(folder: Path, tmp_path: Path) -> None:
    argv = ["simulate", "token_prices", "-n", "900", "--pieces", "3", "--tiers", "2", "--levels", "40"]
    assert main([*argv, "-o", str(tmp_path / "log.parquet")]) == 0
    for at in (1, 2, 3):
        assert (tmp_path / f"log-000{at}.parquet").read_bytes() == (folder / f"log-000{at}.parquet").read_bytes()


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--pieces", "3", "--seen-by", "policy.json"], "do not go together"),
        (["--pieces", "30", "-n", "9"], "30 pieces of 9 queries"),
    ],
)
def test_pieces_that_cannot_be_are_refused(
    argv: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, said = run(capsys, "simulate", "independent", *argv, "-o", tmp_path / "log.parquet")
    assert code == 1
    assert told in said
    assert list(tmp_path.iterdir()) == []


def test_counts_of_the_pieces_add_up_to_the_bytes_of_the_whole(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cuts = ("--cuts", folder / "counts.parquet")
    for at in (3, 1, 2):
        assert run(capsys, "count", folder / f"log-000{at}.parquet", *cuts, "-o", tmp_path / f"{at}.parquet")[0] == 0
    parts = [tmp_path / f"{at}.parquet" for at in (2, 3, 1)]
    code, out, _ = run(capsys, "count", *parts, "-o", tmp_path / "sum.parquet")
    assert code == 0
    assert out.splitlines()[-1].startswith(f"wrote {tmp_path / 'sum.parquet'}: 900 queries in ")
    assert (tmp_path / "sum.parquet").read_bytes() == (folder / "counts.parquet").read_bytes()


def test_sketches_are_written_added_and_taken_for_cuts(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for at in (1, 2, 3):
        argv = ("count", folder / f"log-000{at}.parquet", "--sketch", "-o", tmp_path / f"s{at}.parquet")
        assert "a rank is known to 0.000 %" in run(capsys, *argv)[1]
    sketches = [tmp_path / f"s{at}.parquet" for at in (1, 2, 3)]
    assert json.loads(run(capsys, "count", *sketches, "-o", tmp_path / "s.parquet", "--json")[1])["queries"] == 900
    argv = ("count", folder / "log-*.parquet", "--cuts", tmp_path / "s.parquet", "-o", tmp_path / "c.parquet")
    assert run(capsys, *argv)[0] == 0
    assert (tmp_path / "c.parquet").read_bytes() == (folder / "counts.parquet").read_bytes()


def test_every_command_takes_counts(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    counts, policy = folder / "counts.parquet", tmp_path / "policy.json"
    code, out, _ = run(capsys, "inspect", counts)
    assert code == 0
    assert out.startswith("900 queries, 32 groups, 2 tiers, 2 readings\n")
    assert "counted" in out
    code, out, _ = run(capsys, "fit", counts, "--budget", "2", "--folds", "2", "-o", policy)
    assert code == 0
    assert out.startswith("budget 2; 900 queries; ")
    tables = []
    for log in (counts, folder / "log-*.parquet"):
        code, out, _ = run(capsys, "replay", policy, log, "--json")
        assert code == 0
        tables.append(json.loads(out)["cost"]["mean"])
    assert tables[0] == tables[1]
    assert run(capsys, "compare", counts, "--methods", "thresholds", "--folds", "2", "--jobs", "1")[0] == 0
    assert run(capsys, "count", folder / "log-*.parquet", "--cuts", policy, "-o", tmp_path / "own.parquet")[0] == 0
    code, out, _ = run(capsys, "replay", policy, tmp_path / "own.parquet", "--json")
    assert json.loads(out)["cost"]["mean"] == pytest.approx(tables[0], rel=1e-9)


def test_what_was_made_coarser_is_said_and_kept(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("count", folder / "log-*.parquet", "--cells", "800", "-o", tmp_path / "coarse.parquet")
    code, out, _ = run(capsys, *argv)
    assert code == 0
    assert out.startswith("to keep the cells few, conf of tier1 ")
    found = json.loads(run(capsys, *argv, "--json")[1])
    assert found["cells"] <= 800
    assert max(found["bins"].values()) < 32
    assert found["notes"][0] in run(capsys, "inspect", tmp_path / "coarse.parquet")[1].replace("\n           ", " ")


def test_counts_and_logs_are_not_added_up(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = (folder / "counts.parquet", folder / "log-0001.parquet")
    code, _, said = run(capsys, "count", *both, "-o", tmp_path / "sum.parquet")
    assert code == 1
    assert "E_FILE: counts.parquet is a counts file, which is not counted again, nor added to a log" in said
    assert "count the log by itself (--cuts counts.parquet" in said
    assert list(tmp_path.iterdir()) == []


def test_a_file_counts_once_whatever_it_is_called(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (tmp_path / "link.parquet").symlink_to(folder / "log-0001.parquet")
    (tmp_path / "twin.parquet").hardlink_to(folder / "log-0001.parquet")
    others = ("log-0001.parquet", "./log-0001.parquet", folder / "log-0001.parquet", "log-*.parquet")
    for other in (*others, tmp_path / "link.parquet", tmp_path / "twin.parquet"):
        code, _, said = run(capsys, "count", "log-0001.parquet", other, "-o", tmp_path / "out.parquet")
        assert code == 1
        assert "would count twice; name it once" in said
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("kind", ["counts", "sketch"])
def test_what_was_counted_is_added_once(
    kind: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (one, copy), out = (tmp_path / "one.parquet", tmp_path / "copy.parquet"), tmp_path / "out.parquet"
    said = ["--sketch"] if kind == "sketch" else ["--cuts", str(folder / "counts.parquet")]
    assert run(capsys, "count", folder / "log-0001.parquet", *said, "-o", one)[0] == 0
    assert run(capsys, "count", one, one, "-o", out)[2].endswith(
        "is named twice, and would count twice; name it once\n"
    )
    copy.write_bytes(one.read_bytes())
    assert "hold the same to the last byte, which would count twice" in run(capsys, "count", one, copy, "-o", out)[2]
    assert run(capsys, "count", folder / "log-0002.parquet", *said, "-o", copy)[0] == 0
    code, told, _ = run(capsys, "count", tmp_path / "*o*.parquet", "-o", out)
    assert (code, ": 600 queries" in told) == (0, True)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("counts.parquet --cuts nothere", "--cuts says nothing here: counts are added up as they are"),
        ("counts.parquet --bins 4", "--bins says nothing here"),
        ("counts.parquet --context foo", "--context says nothing here"),
        ("counts.parquet --sketch", "--sketch says nothing here"),
        ("log-0001.parquet --sketch --cells 900", "--cells says nothing here: a sketch has no bins yet"),
        (
            "log-0001.parquet --cuts log-0002.parquet",
            "log-0002.parquet is a log, which has no edges yet; count it first",
        ),
        ("numbers.parquet --context tokens:4", "`metaverify count --cuts FILE` takes it from a policy that has it"),
    ],
)
def test_what_would_say_nothing_is_refused(
    argv: str,
    told: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    table = pl.read_parquet(folder / "log-0001.parquet").with_columns(tokens=pl.int_range(pl.len()) + 0.5)
    table.write_parquet(folder / "numbers.parquet")
    code, _, said = run(capsys, "count", *argv.split(), "-o", tmp_path / "out.parquet")
    assert code == 1
    assert told in said
    assert list(tmp_path.iterdir()) == []


def test_a_policy_by_numbers_says_where_they_are_cut(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pl.read_parquet(folder / "log-0001.parquet").with_columns(tokens=pl.int_range(pl.len()) + 0.5)
    table.write_parquet(tmp_path / "log.parquet")
    policy, context = tmp_path / "policy.json", ("--context", "tokens:3")
    fit = ("fit", tmp_path / "log.parquet", *context, "--budget", "5", "--method", "thresholds", "--folds", "2")
    assert run(capsys, *fit, "-o", policy)[0] == 0
    count = ("count", tmp_path / "log.parquet", *context, "--cuts", policy, "-o", tmp_path / "counts.parquet")
    assert run(capsys, *count)[0] == 0
    cells = load_counts(tmp_path / "counts.parquet").cells
    assert cells.context_cuts["tokens"] == load_policy(policy).context_cuts["tokens"]


def test_whatever_takes_a_log_takes_counts(folder: Path) -> None:
    counts = load_counts(folder / "counts.parquet")
    log, policy = counts.log(), fit(counts, budget=5.0, folds=2).policy
    assert replay(policy, counts) == replay(policy, log)
    assert inspect_log(counts) == inspect_log(log)
    found = [compare(rows, ["thresholds"], budgets=[5.0], folds=2) for rows in (counts, log)]
    assert found[0].differences == found[1].differences


def test_counts_are_no_partial_log(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, "fit", folder / "counts.parquet", "--partial", "--budget", "5")[2]
    assert "counts.parquet was counted, which no partial log can be; give --partial the log itself" in said
    assert "metaverify count" not in said
