"""`metaverify count` writes what every other command takes for a log, and adds up what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metaverify.cli import main
from metaverify.commands.simulate import piece_name
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
    assert "E_FILE: counts.parquet is a counts file, which is not counted again" in said
    assert list(tmp_path.iterdir()) == []
