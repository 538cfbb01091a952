"""Certificates from the command line: what is written, printed, kept and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from metaverify.cli import main
from metaverify.fitting.certify import Terms, certify
from metaverify.policies.file import load_policy
from metaverify.simulators.reader import read_log, write_log
from metaverify.simulators.worlds import WORLDS


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command in this process, in an empty folder with two logs, traffic and a policy."""
    monkeypatch.chdir(tmp_path)
    world = WORLDS["token_prices"](2)
    write_log(world.draw(300, 1), "known.parquet")
    write_log(world.draw(2000, 2), "new.parquet")
    frame = pl.read_parquet("new.parquet")
    frame.drop([name for name in frame.columns if name.startswith("correct_")]).write_parquet("traffic.parquet")

    def command(*argv: str) -> Ran:
        capsys.readouterr()
        try:
            code = main([*argv])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Ran(code, *capsys.readouterr())

    fitted = command("fit", "known.parquet", "--budget", "2.5", "--method", "thresholds", "-o", "policy.json")
    assert fitted.code == 0
    assert "certificate: none" in fitted.out
    return command


def test_a_log_its_traffic_and_the_library_say_the_same(run: Run) -> None:
    for source in (["new.parquet"], ["--traffic", "traffic.parquet"]):
        ran = run("certify", "policy.json", *source, "--budget", "2.5", "--delta", "0.05", "-o", "sure.json")
        assert (ran.code, ran.err) == (0, "")
        assert "certificate: expected cost per query at most 2.5" in ran.out
        assert "wrote sure.json" in ran.out
        wanted = certify(load_policy("policy.json"), read_log("new.parquet"), budget=2.5, terms=Terms(delta=0.05))
        assert load_policy("sure.json") == wanted
    assert load_policy("policy.json").certificate is None


def test_it_is_shown_by_show_decide_replay_and_report(run: Run) -> None:
    assert run("certify", "policy.json", "--traffic", "traffic.parquet", "--budget", "2.5").code == 0
    certificate = load_policy("policy.json").certificate
    assert certificate is not None
    text = f"certificate: {certificate}"
    assert text in run("show", "policy.json").out
    assert text in run("decide", "policy.json", "{}", "--key", "1", "--explain").out
    assert text in run("replay", "policy.json", "new.parquet").out
    told = json.loads(run("replay", "policy.json", "new.parquet", "--json").out)
    assert told["certificate"] == asdict(certificate)
    assert json.loads(run("show", "policy.json", "--json").out)["certificate"]["limit"] == 2.5
    assert json.loads(run("decide", "policy.json", "{}", "--key", "1", "--explain", "--json").out)["certificate"]
    assert "certificate: none" in run("show", "policy.json", "--budget", "2.6").out


def test_json_says_everything(run: Run) -> None:
    ran = run("certify", "policy.json", "new.parquet", "--budget", "2.5", "--looks", "--json", "-o", "sure.json")
    told: dict[str, Any] = json.loads(ran.out)
    policy = load_policy("sure.json")
    assert policy.certificate is not None
    assert told["certificate"] == asdict(policy.certificate)
    assert told["certificate"]["method"] == "e-process"
    assert told["expected"]["cost"] == policy.expected_cost
    assert told["warnings"] == []
    again = run("certify", "sure.json", "new.parquet", "--budget", "2.5", "--looks", "--json")
    assert json.loads(again.out)["certificate"]["looks"] == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["known.parquet", "--budget", "2.5"], "E_INSAMPLE"),
        (["--budget", "2.5"], "give a log that the policy was not fitted on"),
        (["new.parquet", "--budget", "1.05"], "the lowest budget that can be had here"),
        (["new.parquet", "--budget", "2.5", "--dearest", "3"], "E_DEAREST"),
        (["new.parquet", "--budget", "2.5", "--method", "clopper-pearson"], "two tiers at fixed prices"),
        (["new.parquet", "--budget", "2.5", "--method", "betting", "--looks"], "does not go with an e-process"),
    ],
)
def test_what_cannot_be_promised_leaves_the_file_as_it_is(run: Run, argv: list[str], message: str) -> None:
    before = Path("policy.json").read_bytes()
    ran = run("certify", "policy.json", *argv)
    assert (ran.code, ran.out) == (1, "")
    assert message in ran.err
    assert Path("policy.json").read_bytes() == before


@pytest.mark.parametrize(
    "argv", [["--budget", "nan"], ["--budget", "2", "--delta", "0.7"], ["--budget", "2", "--next", "0"]]
)
def test_numbers_that_are_none_are_wrong_use(run: Run, argv: list[str]) -> None:
    assert run("certify", "policy.json", "new.parquet", *argv).code == 2


def test_prompts_asked_again_are_warned_of_and_groups_are_kept_together(run: Run) -> None:
    frame = pl.read_parquet("traffic.parquet").with_columns(prompt=pl.Series(np.arange(2000) // 10))
    frame.write_parquet("traffic.parquet")
    alone = run("certify", "policy.json", "--traffic", "traffic.parquet", "--budget", "2.5", "-o", "alone.json")
    assert "warning repeated-prompts: 200 values of prompt in 2,000 queries" in alone.out
    told = run(
        "certify",
        "policy.json",
        "--traffic",
        "traffic.parquet",
        "--budget",
        "2.5",
        "--group",
        "prompt",
        "-o",
        "told.json",
    )
    assert "warning" not in told.out
    assert "2,000 rows in 200 groups" in told.out
    assert load_policy("told.json").expected_cost < load_policy("alone.json").expected_cost


def test_fit_certifies_what_it_learns(run: Run) -> None:
    fit = ("fit", "new.parquet", "--method", "thresholds", "--json", "-o", "sure.json")
    exact = json.loads(run(*fit, "--budget", "2.5", "--certify", "--delta", "0.05").out)["certificate"]
    assert (exact["level"], exact["delta"], exact["limit"]) == ("finite-sample", 0.05, 2.5)
    rough = json.loads(run(*fit, "--budget", "2.5", "--certify", "approximate").out)["certificate"]
    assert (rough["level"], rough["rows"]) == ("approximate", 2000)
    assert json.loads(run(*fit, "--quality-floor", "0.6").out)["certificate"] is None
    floor = json.loads(run(*fit, "--quality-floor", "0.6", "--delta", "0.1").out)["certificate"]
    assert (floor["promise"], floor["level"], floor["limit"]) == ("expected quality", "finite-sample", 0.6)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--budget", "2.5", "--delta", "0.1"], "--delta goes with --certify"),
        (["--budget", "2.5", "--next", "10"], "--next goes with --certify"),
        (["--price", "0.1", "--certify"], "a price promises nothing"),
        (["--quality-floor", "0.6", "--certify"], "--certify goes with --budget"),
        (["--quality-floor", "0.999"], "E_FLOOR"),
        (["--quality-floor", "0.9", "--delta", "0.1"], "E_"),
        (["--budget", "1.2", "--certify", "--delta", "0.001"], "E_CERTIFICATE"),
    ],
)
def test_fit_writes_nothing_that_is_not_promised(run: Run, argv: list[str], message: str) -> None:
    ran = run("fit", "known.parquet", "--method", "thresholds", "-o", "sure.json", *argv)
    assert ran.code == 1
    assert message in ran.err
    assert not Path("sure.json").exists()


def test_a_policy_that_is_certified_again_is_warned_of_and_looks_are_not(run: Run) -> None:
    look = ["certify", "policy.json", "--traffic", "traffic.parquet", "--budget", "2.5"]
    for more, slugs in (([], []), ([], ["certified-again"])):
        ran = run(*look, *more, "--json")
        assert ran.code == 0
        assert [slug for slug in json.loads(ran.out)["warnings"] if slug == "certified-again"] == slugs
    assert run("fit", "known.parquet", "--budget", "2.5", "--method", "thresholds", "-o", "policy.json").code == 0
    for _ in range(2):
        assert "certified-again" not in run(*look, "--looks").out


def test_a_price_that_is_typed_is_that_of_the_policy(run: Run) -> None:
    ran = run("certify", "policy.json", "--traffic", "traffic.parquet", "--budget", "2.5", "--cost", "tier1=0.1")
    assert ran.code == 1
    assert "--cost tier1=0.1, but that price varied in the log that the policy was fitted on" in ran.err
    assert load_policy("policy.json").certificate is None
    write_log(WORLDS["shared_difficulty"](2).draw(300, 1), "known.parquet")
    write_log(WORLDS["shared_difficulty"](2).draw(2000, 2), "new.parquet")
    assert run("fit", "known.parquet", "--budget", "2.5", "--method", "thresholds", "-o", "policy.json").code == 0
    price = load_policy("policy.json").tiers[1].price
    look = ["certify", "policy.json", "new.parquet", "--budget", "2.5"]
    assert f"but that price is {price:g} in the policy" in run(*look, "--cost", "tier2=0.5").err
    assert run(*look, "--cost", f"tier2={price}").code == 0
