"""Shadow, promote and rollback from the command line say and do what the library does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from metaverify.cli import main
from metaverify.policies.editions import editions
from metaverify.policies.file import load_policy, policy_id, save_policy
from metaverify.report import shadow_table
from metaverify.simulators.reader import write_log
from metaverify.simulators.shadowing import Margins, compare_decisions, compare_routes, report_of
from tests.simulators.test_shadowing import CANDIDATE, DRIFTED, LIVE, labelled, routed, week

GOLDEN = Path(__file__).resolve().parent / "golden"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two policies, a decision log of a drifted week with labels, and its queries as a log."""
    folder = tmp_path_factory.mktemp("shop")
    log, slices = week(2100, 1, drifted=True)
    save_policy(CANDIDATE, folder / "candidate.json")
    save_policy(LIVE, folder / "live.json")
    routed(log, slices["day"], folder / "decisions.jsonl", LIVE)
    labelled(log, folder / "labels.csv")
    write_log(log, folder / "log.parquet")
    frame = pl.read_parquet(folder / "log.parquet")
    days = pl.DataFrame({"query_id": log.query_ids.astype(str), "day": slices["day"].astype(str)})
    frame.join(days, on="query_id").rename({"context": "task"} if "context" in frame.columns else {}).write_parquet(
        folder / "log.parquet"
    )
    return folder


def test_shadow_prints_the_report_of_a_decision_log(shop: Path, capsys: Capture) -> None:
    argv = ["shadow", str(shop / "candidate.json"), str(shop / "decisions.jsonl"), "--labels", str(shop / "labels.csv")]
    assert main(argv) == 0
    told = capsys.readouterr().out
    log, _ = week(2100, 1, drifted=True)
    found = report_of(compare_decisions(CANDIDATE, shop / "decisions.jsonl", labelled(log, shop / "again.csv")))
    assert told == shadow_table(found) + "\n"
    assert f"worse in quality: day {DRIFTED}, context code" in told
    assert "verdict: not safe" in told
    assert main([*argv, "--quality-margin", "90", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["verdict"], body["margins"]["quality"], body["n"]) == ("safe", 0.9, 2100)


def test_shadow_replays_any_log_against_the_policy_in_use(shop: Path, capsys: Capture) -> None:
    argv = ["shadow", str(shop / "candidate.json"), str(shop / "log.parquet"), "--live", str(shop / "live.json")]
    assert main([*argv, "--by", "day,task", "--cost-margin", "0.1", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    log, slices = week(2100, 1, drifted=True)
    side = compare_routes(CANDIDATE, LIVE, log.without_contexts(), {**slices, "task": log.contexts})
    wanted = report_of(side, Margins(0.01, 0.1))
    assert body["slices"][0]["where"] == f"day {DRIFTED}, task code" == wanted.slices[0].where
    assert body["quality"]["mean"] == pytest.approx(wanted.quality.mean)
    assert [each["where"] for each in body["slices"]] == [each.where for each in wanted.slices]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["log.parquet"], "say with --live which policy is in use"),
        (["log.parquet", "--live", "live.json", "--labels", "labels.csv"], "its own columns"),
        (["decisions.jsonl", "--live", "live.json"], "tells the policy in use and the day itself"),
        (["decisions.jsonl", "--by", "day"], "tells the policy in use and the day itself"),
        (["none.jsonl"], "none.jsonl"),
    ],
)
def test_what_does_not_belong_together_is_told(
    argv: list[str], words: str, shop: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop)
    assert main(["shadow", "candidate.json", *argv]) == 1
    assert words in capsys.readouterr().err


def test_promote_and_rollback_exchange_the_file_and_say_so(tmp_path: Path, capsys: Capture) -> None:
    one, other = (replace(load_policy(GOLDEN / "spread.json"), serial=serial) for serial in (3, 2))
    save_policy(one, tmp_path / "one.json")
    save_policy(replace(other, provenance={"other": True}), tmp_path / "other.json")
    live = tmp_path / "live.json"
    assert main(["promote", str(tmp_path / "one.json"), str(live)]) == 0
    assert main(["promote", str(tmp_path / "other.json"), str(live)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"{live} is now {policy_id(one)[:19]} (serial 3)"
    assert "(serial 4) in the place of" in told[1]
    assert "has the next serial now" in told[1]
    assert main(["rollback", str(live), "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["live"], body["serial"], body["source"]) == (str(live), 5, policy_id(one))
    assert load_policy(live) == replace(one, serial=5)
    assert [(each.number, each.before, each.serial) for each in editions(live)] == [(1, 0, 3), (2, 1, 4), (3, 0, 5)]
    assert main(["rollback", str(live)]) == 1
    assert "no edition before it that was not withdrawn" in capsys.readouterr().err
    assert main(["rollback", str(live), "--to", "4"]) == 0
    capsys.readouterr()
    live.write_bytes(b"")
    assert main(["rollback", str(live)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith(f"damaged: E_EMPTY at {live}: the file is empty")
    assert told[1].startswith(f"{live} is now sha256:")
    assert load_policy(live).serial == 6


def test_a_signed_policy_stays_signed(tmp_path: Path, capsys: Capture) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"a secret of sixteen bytes or more")
    key.chmod(0o600)
    save_policy(LIVE, tmp_path / "live.json", key=key.read_bytes())
    save_policy(CANDIDATE, tmp_path / "candidate.json", key=key.read_bytes())
    argv = ["promote", str(tmp_path / "candidate.json"), str(tmp_path / "live.json")]
    assert main(argv) == 1
    assert "is signed; give the key" in capsys.readouterr().err
    assert main([*argv, "--key-file", str(key)]) == 0
    assert main(["rollback", str(tmp_path / "live.json"), "--key-file", str(key)]) == 0
    assert load_policy(tmp_path / "live.json", key=key.read_bytes()) == LIVE
