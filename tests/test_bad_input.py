"""What is wrong with the input is said in one line that names the place, the value and a way out; nothing is written.

What only looks odd works, and the result is the sensible one.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from metaverify.cli import main
from metaverify.policies.file import load_policy

Change = Callable[[int], object]

KEPT = b"an older policy\n"


def rows(count: int = 60, **columns: object) -> list[dict[str, object]]:
    """A log of two tiers, the dear one better; columns replaced, added, or left out where None."""
    found = []
    for at in range(count):
        low, high = at * 37 % 100 / 100, at * 53 % 100 / 100
        row: dict[str, object] = {"query_id": f"q{at + 1}", "task": "xy"[at % 2]}
        row |= {"conf_small": low, "correct_small": int(low > 0.5), "cost_small": 1}
        row |= {"conf_large": high, "correct_large": int(high > 0.3), "cost_large": 5}
        row |= {name: value(at) if callable(value) else value for name, value in columns.items()}
        found.append({name: value for name, value in row.items() if columns.get(name, "") is not None})
    return found


def in_row(number: int, value: object, otherwise: object) -> Change:
    """The value in one row (counted from 1) and something else in the others."""
    return lambda at: value if at + 1 == number else otherwise


def csv(table: Sequence[dict[str, object]]) -> bytes:
    lines = [",".join(table[0]), *(",".join(map(str, row.values())) for row in table)]
    return ("\n".join(lines) + "\n").encode()


def parquet(table: Sequence[dict[str, object]], folder: Path) -> bytes:
    pl.DataFrame(table).write_parquet(folder / "spare.parquet")
    raw = (folder / "spare.parquet").read_bytes()
    (folder / "spare.parquet").unlink()
    return raw


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*argv: str) -> Ran:
        capsys.readouterr()
        try:
            code = main(argv)
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Ran(code, *capsys.readouterr())

    return command


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A policy for the log above that mixes two graphs, and one that decides by task."""
    folder = tmp_path_factory.mktemp("policies")
    (folder / "log.csv").write_bytes(csv(rows()))
    found = {}
    for name, options in (("policy.json", []), ("by-task.json", ["--context", "task"])):
        argv = ["fit", str(folder / "log.csv"), "--budget", "3", "--folds", "2", *options, "-o", str(folder / name)]
        assert main(argv) == 0
        found[name] = (folder / name).read_bytes()
    point = load_policy(folder / "policy.json").point
    assert point.low != point.high
    assert load_policy(folder / "by-task.json").context == ("task",)
    return found


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policies: dict[str, bytes]) -> Path:
    """The working folder, with a good log and two good policies."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_bytes(csv(rows()))
    for name, raw in policies.items():
        (tmp_path / name).write_bytes(raw)
    return tmp_path


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(run: Run, folder: Path, argv: Sequence[str], *says: str, codes: Sequence[int] = (1,)) -> str:
    """The one line with which a command is refused; every pattern of ``says`` is in it, and no file has changed."""
    before = contents(folder)
    ran = run(*argv)
    assert ran.code in codes, ran
    assert ran.out == ""
    lines = ran.err.splitlines()
    if ran.code == 1:
        assert len(lines) == 1, ran.err
        assert ran.err.startswith("metaverify: ")
    for pattern in says:
        assert re.search(pattern, lines[-1]), f"{pattern!r} is not in {lines[-1]!r}"
    assert contents(folder) == before
    return lines[-1]


# --------------------------------------------------------------------------------------------- logs, as files

WHOLE_GZIP = gzip.compress(csv(rows()), mtime=0)
FILES: dict[str, tuple[str, bytes | None, tuple[str, ...]]] = {
    "a log that is not there": ("nosuch.csv", None, (r"nosuch\.csv", "no such file", "SHOP")),
    "a log in a folder that is not there": ("no/such.csv", None, (r"such\.csv", "no such file", r"SHOP/no\b")),
    "a folder": ("folder.csv", None, (r"folder\.csv", "folder", "name a file")),
    "an empty file": ("bad.csv", b"", (r"bad\.csv is empty", "again")),
    "an empty Parquet file": ("bad.parquet", b"", (r"bad\.parquet is empty", "again")),
    "blank lines": ("bad.jsonl", b"\n\n", (r"bad\.jsonl is empty", "again")),
    "an empty gz file": ("bad.csv.gz", gzip.compress(b""), (r"bad\.csv\.gz is empty", "again")),
    "a header only": ("bad.csv", csv(rows())[:90].split(b"\n")[0] + b"\n", (r"bad\.csv", "no rows", "again")),
    "one row": ("bad.csv", csv(rows(1)), (r"bad\.csv", "1 query", "at least 2")),
    "half a gz file": ("bad.csv.gz", WHOLE_GZIP[: len(WHOLE_GZIP) // 2], (r"bad\.csv\.gz", "gzip", "again")),
    "no gz file at all": ("bad.csv.gz", csv(rows()), (r"bad\.csv\.gz", "gzip", "again")),
    "an unknown suffix": ("bad.xlsx", csv(rows()), (r"bad\.xlsx", r"\.parquet, \.csv")),
    "text that is not UTF-8": ("bad.csv", csv(rows()) + b"\xff", (r"bad\.csv", "byte", "0xff", "UTF-8")),
    "semicolons": ("bad.csv", csv(rows()).replace(b",", b";"), (r"bad\.csv", "';'", "commas")),
    "a row too short": ("bad.csv", csv(rows()) + b"q99,x,0.5\n", (r"bad\.csv row 61", "3 fields", "8")),
    "a row too long": ("bad.csv", csv(rows()) + b"q99" + b",1" * 9 + b"\n", (r"bad\.csv row 61", "10 fields", "8")),
    "a line that is not JSON": ("bad.jsonl", b'{"correct_a": 1}\n{"correct_a"\n', (r"bad\.jsonl line 2", "one object")),
    "a column twice": ("bad.csv", b"correct_a,cost_a,cost_a\n1,1,1\n0,1,1\n", (r"bad\.csv", "'cost_a'", "rename")),
    "no tier": ("bad.csv", b"query_id,right\nq1,1\nq2,0\n", (r"bad\.csv", "correct_<tier>", "query_id")),
    "a confidence of no tier": (
        "bad.csv",
        csv(rows(conf_smal=0.5)),
        (r"bad\.csv", "conf_smal ", "'small'", "rename or drop"),
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_log_is_refused(case: str, run: Run, shop: Path) -> None:
    name, raw, says = FILES[case]
    if case == "a folder":
        (shop / name).mkdir()
    elif raw is not None:
        (shop / name).write_bytes(raw)
    says = tuple(pattern.replace("SHOP", re.escape(str(shop))) for pattern in says)
    told = refused(run, shop, ["fit", name, "--budget", "3", "-o", "new.json"], *says)
    assert refused(run, shop, ["inspect", name]) == told
    assert refused(run, shop, ["replay", "policy.json", name]) == told
    (shop / "old.json").write_bytes(KEPT)
    assert refused(run, shop, ["fit", name, "--budget", "3", "-o", "old.json"]) == told


@pytest.mark.parametrize("part", [0.02, 0.5, 0.97, 0.999])
def test_a_parquet_file_cut_off_anywhere_is_refused(part: float, run: Run, shop: Path) -> None:
    raw = parquet(rows(), shop)
    (shop / "bad.parquet").write_bytes(raw[: int(part * len(raw))])
    refused(run, shop, ["fit", "bad.parquet", "--budget", "3", "-o", "new.json"], r"bad\.parquet", "damaged or cut off")


# -------------------------------------------------------------------------------------------- logs, as values

VALUES: dict[str, tuple[dict[str, object], tuple[str, ...]]] = {
    "a confidence above 1": (
        {"conf_small": in_row(17, 1.3, 0.5)},
        ("row 17", r"conf_small is 1\.3", r"outside \[0, 1\]", "correct it|--scale"),
    ),
    "a confidence below 0": (
        {"conf_small": in_row(17, -0.2, 0.5)},
        ("row 17", r"conf_small is -0\.2", r"outside \[0, 1\]", "correct it"),
    ),
    "percent": ({"conf_small": lambda at: 40 + at}, ("row 1:", "conf_small is 40", "--scale 100")),
    "an infinite confidence": ({"conf_small": in_row(3, "inf", 0.5)}, ("row 3", "conf_small is 'inf'", "correct it")),
    "words for a confidence": (
        {"conf_small": in_row(4, "high", 0.5)},
        ("row 4", "conf_small is 'high'", "not a number", r"number in \[0, 1\]"),
    ),
    "words for correctness": (
        {"correct_small": in_row(4, "yes", 1)},
        ("row 4", "correct_small is 'yes'", "true, false", "--tiers"),
    ),
    "correctness above 1": ({"correct_small": in_row(4, 2, 1)}, ("row 4", "correct_small is 2", "rescale")),
    "words for a price": ({"cost_small": in_row(4, "$1", 1)}, ("row 4", r"cost_small is '\$1'", "--cost small=PRICE")),
    "a negative price": ({"cost_small": in_row(4, -1, 1)}, ("row 4", "cost_small is -1", "--cost small=PRICE")),
    "a price that is NaN": (
        {"cost_small": in_row(4, "nan", 1)},
        ("row 4", "cost_small is 'nan'", "--cost small=PRICE"),
    ),
    "an infinite price": ({"cost_small": in_row(4, "inf", 1)}, ("row 4", "cost_small is 'inf'", "--cost small=PRICE")),
    "a missing price": ({"cost_small": in_row(4, "", 1)}, ("row 4", "cost_small is missing", "--cost small=PRICE")),
    "no prices at all": ({"cost_small": None}, ("bad.csv", "'small' has no price", "--cost small=PRICE")),
    "a query twice": (
        {"query_id": in_row(9, "q3", lambda at: f"q{at}")},
        ("row 9", "'q3'", "already in row 3", "group_id"),
    ),
    "a query without an id": ({"query_id": in_row(9, "", "q")}, ("row", "query_id", "fill it in|own id")),
    "partial correctness": (
        {"correct_large": lambda at: "" if at % 2 else 1},
        ("row 2", "correct_large is missing", "30 of 60 rows", "drop those rows", "--tiers"),
    ),
    "a weight of nothing": ({"weight": in_row(5, 0, 1)}, ("row 5", "weight is 0", "above 0")),
    "an empty group": ({"group_id": in_row(5, "", "g")}, ("row 5", "group_id is missing", "leave the column out")),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_value_that_cannot_be_is_refused_with_its_place(case: str, run: Run, shop: Path) -> None:
    columns, says = VALUES[case]
    if case == "a query twice":
        columns = {"query_id": lambda at: "q3" if at == 8 else f"q{at + 1}"}
    (shop / "bad.csv").write_bytes(csv(rows(**columns)))
    told = refused(run, shop, ["fit", "bad.csv", "--budget", "3", "-o", "new.json"], r"bad\.csv", *says)
    assert refused(run, shop, ["inspect", "bad.csv"]) == told


# ------------------------------------------------------------------------------------------------- options

OPTIONS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "an unknown context": (["--context", "tsk"], (r"log\.csv", "'tsk'", "--context", "did you mean 'task'")),
    "one unknown context of two": (["--context", "task,ink"], (r"log\.csv", "'ink'", "--context", "there are|mean")),
    "an unknown group": (["--group", "prompt"], (r"log\.csv", "'prompt'", "--group", "there are query_id")),
    "an unknown weight": (["--weight", "w"], (r"log\.csv", "'w'", "--weight", "there are query_id")),
    "an unknown tier": (["--tiers", "smal,large"], (r"log\.csv", "'smal'", "--tiers", "did you mean 'small'")),
    "a tier that is like none": (["--tiers", "gpt"], (r"log\.csv", "'gpt'", "--tiers", "there are small, large")),
    "no tier": (["--tiers", ","], (r"log\.csv", "--tiers", "there are small, large")),
    "an unknown reading": (["--readings", "votes"], ("'votes'", "it has conf")),
    "a scale of 0": (["--scale", "0"], (r"log\.csv", "scale is 0", "100 for percent")),
    "a scale that is NaN": (["--scale", "nan"], (r"log\.csv", "scale is nan", "100 for percent")),
    "a cost without a price": (["--cost", "small"], ("--cost small:", "tier=price", "--cost small=0.2")),
    "a cost without a tier": (["--cost", "=2"], ("--cost =2:", "tier=price", "--cost small=0.2")),
    "a cost that is no number": (["--cost", "small=$2"], (r"--cost small=\$2:", "tier=price", "--cost small=0.2")),
    "a cost of an unknown tier": (["--cost", "smal=2"], ("'smal'", "--cost", "did you mean 'small'")),
    "a negative cost": (["--cost", "small=-2"], (r"--cost small=-2", "not a price", "from 0 up")),
    "a cost that is NaN": (["--cost", "small=nan"], ("--cost small=nan", "not a price", "from 0 up")),
    "a budget below every tier": (["--budget", "0.5"], ("budget 0.5", "below 1,", "small", "--budget 1")),
    "a negative budget": (["--budget=-1"], ("budget -1", "below 1,", "small", "--budget 1")),
    "a budget of nothing": (["--budget", "0"], ("budget 0 ", "below 1,", "small", "--budget 1")),
    "a budget that is NaN": (["--budget", "nan"], ("budget (is )?nan", "--budget 1")),
    "a budget of minus infinity": (["--budget=-inf"], ("budget -inf", "--budget 1")),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_an_option_that_does_not_fit_the_log_is_refused(case: str, run: Run, shop: Path) -> None:
    options, says = OPTIONS[case]
    budget = [] if "--budget" in options[0] else ["--budget", "3"]
    refused(run, shop, ["fit", "log.csv", *budget, *options, "-o", "new.json"], *says)
    (shop / "old.json").write_bytes(KEPT)
    refused(run, shop, ["fit", "log.csv", *budget, *options, "-o", "old.json"], *says)


@pytest.mark.parametrize("price", ["-1", "-inf", "nan"])
def test_a_price_that_is_none_is_refused(price: str, run: Run, shop: Path) -> None:
    says = (rf"price (is )?{price}\b", "not a number|finite|from 0|at least 0|0 or more|negative")
    told = refused(run, shop, ["fit", "log.csv", f"--price={price}", "-o", "new.json"], *says, codes=(1, 2))
    assert price != "nan" or "negative" not in told
    refused(run, shop, ["replay", "policy.json", "log.csv", f"--price={price}"], *says, codes=(1, 2))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--bins", "0"),
        ("--bins", "-3"),
        ("--folds", "1"),
        ("--folds", "0"),
        ("--folds", "-3"),
        ("--seed", "-1"),
        ("--abstain", "-1"),
        ("--abstain", "1.5"),
        ("--abstain", "nan"),
        ("--abstain", "inf"),
    ],
)
def test_a_number_out_of_its_range_is_refused_by_name(option: str, value: str, run: Run, shop: Path) -> None:
    argv = ["fit", "log.csv", "--budget", "3", f"{option}={value}", "-o", "new.json"]
    refused(run, shop, argv, option.removeprefix("--"), re.escape(value), codes=(1, 2))


def test_a_budget_without_end_is_spent_as_far_as_it_pays_or_refused_by_name(run: Run, shop: Path) -> None:
    argv = ["fit", "log.csv", "--budget", "inf", "--folds", "2", "-o", "new.json"]
    ran = run(*argv)
    if ran.code == 0:
        assert load_policy(shop / "new.json").expected_cost <= 6.0
    else:
        refused(run, shop, argv, "budget (is )?inf")


def test_a_single_bin_tells_nothing_or_is_refused_by_name(run: Run, shop: Path) -> None:
    argv = ["fit", "log.csv", "--budget", "3", "--bins", "1", "--folds", "2", "-o", "new.json"]
    if run(*argv).code == 0:
        outcome = json.loads(run("replay", "new.json", "log.csv", "--json").out)
        assert outcome["gain"]["mean"] == pytest.approx(0.0)
    else:
        refused(run, shop, argv, "bins", "1")


def test_a_policy_that_was_written_can_be_read(run: Run, shop: Path) -> None:
    for abstain in ("0", "1"):
        argv = ["fit", "log.csv", "--budget", "3", "--folds", "2", "--abstain", abstain, "-o", f"{abstain}.json"]
        assert run(*argv).code == 0
        assert load_policy(shop / f"{abstain}.json").abstain == float(abstain)


def test_too_fine_bins_for_many_tiers_are_made_coarser_or_refused_with_a_way_out(run: Run, shop: Path) -> None:
    assert run("simulate", "independent", "-n", "80", "--tiers", "5", "-o", "five.csv").code == 0
    argv = [
        "fit",
        "five.csv",
        "--budget",
        "9",
        "--bins",
        "1000",
        "--method",
        "lattice",
        "--model",
        "counts",
        "--folds",
        "2",
        "-o",
        "new.json",
    ]
    if run(*argv).code == 0:
        assert load_policy(shop / "new.json").expected_cost == pytest.approx(9, rel=0.2)
    else:
        refused(run, shop, argv, "--tiers|--bins")


def test_too_many_tiers_are_refused_with_a_way_out(run: Run, shop: Path) -> None:
    many = {f"{kind}_t{tier}": value for tier in range(20) for kind, value in (("correct", 1), ("cost", tier + 1))}
    confidences = {f"conf_t{tier}": (lambda at, tier=tier: at * (tier + 3) % 20 / 20) for tier in range(20)}
    (shop / "many.csv").write_bytes(csv(rows(**many, **confidences)))
    argv = ["fit", "many.csv", "--budget", "9", "-o", "new.json"]
    told = refused(run, shop, argv, r"\b2[02] tiers", "at most", "--tiers")
    assert "18" in told


# ------------------------------------------------------------------------------------------------- policies


def edited(text: bytes) -> bytes:
    return text.replace(b'"budget":3.0', b'"budget":4.0')


POLICIES: dict[str, tuple[Callable[[bytes], bytes | None], tuple[str, ...]]] = {
    "a policy that is not there": (lambda raw: None, (r"bad\.json", "does not exist", "metaverify fit")),
    "an empty policy": (lambda raw: b"", (r"bad\.json", "is empty", "again")),
    "half a policy": (lambda raw: raw[: len(raw) // 2], (r"bad\.json line \d+", "truncated", "again")),
    "a policy that was edited": (edited, (r"bad\.json", "id", "edited", "again")),
    "another JSON object": (lambda raw: b'{"a": 1}', (r"bad\.json", "not a (metaverify )?policy")),
    "a JSON array": (lambda raw: b"[]", (r"bad\.json", "not a JSON object|not a (metaverify )?policy")),
    "a log": (lambda raw: csv(rows()), (r"bad\.json line 1", "again|not a (metaverify )?policy")),
    "a policy that is not UTF-8": (lambda raw: raw + b"\xff", (r"bad\.json byte \d+", "UTF-8")),
    "a policy of a later version": (
        lambda raw: raw.replace(b'"version": 1', b'"version": 2'),
        (r"bad\.json", "version", "is 2", "reads version 1"),
    ),
    "a policy with a number too many": (
        lambda raw: raw.replace(b'"version": 1', b'"version": 1,\n "version": 1'),
        (r"bad\.json", "'version'", "twice"),
    ),
    "a policy with NaN": (lambda raw: edited(raw).replace(b"4.0", b"NaN"), (r"bad\.json", "NaN", "finite")),
    "a megabyte": (lambda raw: b" " * (1 << 20) + raw, (r"bad\.json", "larger than 1,048,576 bytes")),
}


@pytest.mark.parametrize("case", POLICIES)
def test_a_file_that_is_no_policy_is_refused(case: str, run: Run, shop: Path, policies: dict[str, bytes]) -> None:
    change, says = POLICIES[case]
    if (raw := change(policies["policy.json"])) is not None:
        assert raw != policies["policy.json"]
        (shop / "bad.json").write_bytes(raw)
    told = refused(run, shop, ["show", "bad.json"], *says)
    assert refused(run, shop, ["decide", "bad.json", "{}", "--key", "1"]) == told
    assert refused(run, shop, ["replay", "bad.json", "log.csv"]) == told


def test_a_folder_is_no_policy(run: Run, shop: Path) -> None:
    (shop / "folder.json").mkdir()
    refused(run, shop, ["show", "folder.json"], r"folder\.json", "not a file", "metaverify fit")


def test_a_log_without_a_tier_of_the_policy_is_refused_on_the_policy_s_account(run: Run, shop: Path) -> None:
    table = [{name.replace("large", "huge"): value for name, value in row.items()} for row in rows()]
    (shop / "other.csv").write_bytes(csv(table))
    refused(run, shop, ["replay", "policy.json", "other.csv"], "'large'", "huge", "policy")


def test_a_log_without_a_reading_of_the_policy_is_refused(run: Run, shop: Path) -> None:
    (shop / "other.csv").write_bytes(csv(rows(conf_small=None)))
    refused(run, shop, ["replay", "policy.json", "other.csv"], "'conf'", "'small'", "policy", "no reading")


def test_a_log_without_the_context_of_the_policy_is_refused_on_the_policy_s_account(run: Run, shop: Path) -> None:
    (shop / "other.csv").write_bytes(csv(rows(task=None)))
    refused(run, shop, ["replay", "by-task.json", "other.csv"], "'task'", "context", "policy")


@pytest.mark.parametrize("budget", ["0.5", "-1", "nan"])
def test_a_dial_below_the_cheapest_policy_is_refused(budget: str, run: Run, shop: Path) -> None:
    says = (rf"budget {budget}\b", r"below 1\b")
    refused(run, shop, ["replay", "policy.json", "log.csv", f"--budget={budget}"], *says)
    refused(run, shop, ["show", "policy.json", f"--budget={budget}"], *says)
    refused(run, shop, ["decide", "policy.json", "{}", "--key", "1", f"--budget={budget}"], *says)


# ------------------------------------------------------------------------------------------------ readings

READINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "nothing": ("", ("no JSON", '{"small": 0.42}')),
    "half an object": ('{"small": ', ("no JSON", "column", '{"small": 0.42}')),
    "quotes lost to the shell": ("{small: 0.5}", ("no JSON", "quotes", '{"small": 0.42}')),
    "a number": ("0.5", ("are 0.5", "not a JSON object", '{"small": 0.42}')),
    "an array": ('["small"]', ("not a JSON object", '{"small": 0.42}')),
    "null": ("null", ("are null", "not a JSON object", '{"small": 0.42}')),
    "an unknown tier": ('{"smal": 0.5}', ("'smal'", "large, small", "did you mean 'small'")),
    "words": ('{"small": "high"}', ("'conf' of 'small'", "'high'", "number or")),
    "an array for a confidence": ('{"small": [0.5]}', ("'conf' of 'small'", r"\[0.5\]", "number or")),
    "an object for a confidence": ('{"small": {"conf": {}}}', ("'conf' of 'small'", r"\{\}", "number or")),
    "more digits than a number has": ('{"small": ' + "9" * 5000 + "}", ("readings", "JSON|digits")),
    "an abyss": ('{"small": ' + "[" * 100_000 + "]" * 100_000 + "}", ("readings", "JSON|nested|deep")),
}


@pytest.mark.parametrize("case", READINGS)
def test_readings_that_are_none_are_refused(case: str, run: Run, shop: Path) -> None:
    text, says = READINGS[case]
    for flags in ([], ["--explain"], ["--json"]):
        refused(run, shop, ["decide", "policy.json", text, "--key", "1", *flags], *says)


def test_a_mixture_without_a_key_says_which_option_gives_it(run: Run, shop: Path) -> None:
    refused(run, shop, ["decide", "policy.json", "{}"], "mixes two", "--key", "request's id")


def test_a_reading_outside_its_range_is_missing_and_no_fault(run: Run, shop: Path) -> None:
    actions = {
        run("decide", "policy.json", f'{{"small": {c}}}', "--key", "1").out for c in ("null", "NaN", "1.5", "-1")
    }
    assert len(actions) == 1


# ------------------------------------------------------------------------------------------- places to write


@pytest.mark.parametrize("folder", ["nofolder", "log.csv"])
def test_a_place_that_is_not_there_is_named_as_it_was_given(folder: str, run: Run, shop: Path) -> None:
    argv = ["fit", "log.csv", "--budget", "3", "--folds", "2", "-o", f"{folder}/new.json"]
    assert ".tmp" not in refused(run, shop, argv, re.escape(f"{folder}/new.json"))


@pytest.mark.parametrize("folder", ["nofolder", "log.csv"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl.gz"])
def test_so_is_a_place_for_a_log(folder: str, suffix: str, run: Run, shop: Path) -> None:
    argv = ["simulate", "independent", "-n", "9", "-o", f"{folder}/new{suffix}"]
    assert ".tmp" not in refused(run, shop, argv, re.escape(f"new{suffix}"), rf"/{re.escape(folder)}\b")


def test_a_folder_is_not_written_over(run: Run, shop: Path) -> None:
    (shop / "folder.json").mkdir()
    told = refused(run, shop, ["fit", "log.csv", "--budget", "3", "--folds", "2", "-o", "folder.json"], r"folder\.json")
    assert ".tmp" not in told


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_may_not_be_written_is_named(run: Run, shop: Path) -> None:
    (shop / "shut").mkdir(mode=0o555)
    argv = ["fit", "log.csv", "--budget", "3", "--folds", "2", "-o", "shut/new.json"]
    refused(run, shop, argv, r"shut/new\.json", "[Pp]ermission")
    refused(run, shop, ["simulate", "independent", "-n", "9", "-o", "shut/new.csv"], r"new\.csv", "[Pp]ermission")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-o", "new.txt"], (r"new\.txt", r"\.parquet, \.csv")),
        (["-o", "new.csv", "--missing", "1"], (r"missing (is )?1", r"\[0, 1\)")),
        (["-o", "new.csv", "--missing", "nan"], (r"missing (is )?nan", r"\[0, 1\)")),
        (["-o", "new.csv", "--levels", "1"], (r"levels (is )?1", "at least 2")),
        (["-o", "new.csv", "--seed", "-1"], ("seed", "-1")),
    ],
    ids=["suffix", "all missing", "missing NaN", "one level", "negative seed"],
)
def test_a_world_that_cannot_be_is_refused(options: list[str], says: tuple[str, ...], run: Run, shop: Path) -> None:
    refused(run, shop, ["simulate", "independent", "-n", "9", *options], *says, codes=(1, 2))


# ------------------------------------------------------------------------------------ few groups, few queries


def test_one_group_leaves_nothing_to_check_a_policy_on(run: Run, shop: Path) -> None:
    (shop / "bad.csv").write_bytes(csv(rows(group_id="g")))
    refused(run, shop, ["fit", "bad.csv", "--budget", "3", "-o", "new.json"], "single group|1 group")


@pytest.mark.parametrize("seed", ["0", "1", "2", "3"])
@pytest.mark.parametrize("groups", [2, 3])
def test_few_groups_are_enough_or_said_to_be_too_few(groups: int, seed: str, run: Run, shop: Path) -> None:
    (shop / "few.csv").write_bytes(csv(rows(group_id=lambda at: f"g{at % groups}")))
    argv = ["fit", "few.csv", "--budget", "3", "--seed", seed, "-o", "new.json"]
    if run(*argv).code == 0:
        assert load_policy(shop / "new.json").evidence["groups"] == groups
    else:
        refused(run, shop, argv, "group")


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_few_queries_are_enough_or_said_to_be_too_few(count: int, run: Run, shop: Path) -> None:
    (shop / "few.csv").write_bytes(csv(rows(count)))
    argv = ["fit", "few.csv", "--budget", "3", "-o", "new.json"]
    if run(*argv).code != 0:
        refused(run, shop, argv, "group|quer")


def test_a_policy_too_large_to_be_read_is_not_written(
    run: Run, shop: Path, monkeypatch: pytest.MonkeyPatch, policies: dict[str, bytes]
) -> None:
    (shop / "odd.csv").write_bytes(csv(rows(200)))
    monkeypatch.setattr("metaverify.policies.file.SIZE_LIMIT", 6_000)  # as a million is for 20,000 contexts
    assert len(policies["policy.json"]) < 6_000
    argv = ["fit", "odd.csv", "--budget", "3", "--context", "query_id", "--folds", "2", "-o", "new.json"]
    if run(*argv).code == 0:
        load_policy(shop / "new.json")
    else:
        refused(run, shop, argv, "contexts?|bytes")


# ---------------------------------------------------------------------------------------- odd, and all right

CONSTANT = {"conf_small": 0.5, "conf_large": 0.5}
UNREAD = {"conf_small": "", "conf_large": ""}


@pytest.fixture(params=["auto", "lattice", "lattice --model counts", "thresholds"])
def fitted(request: pytest.FixtureRequest, run: Run, shop: Path) -> Callable[..., dict[str, Any]]:
    """Fit an odd log by each method; what the policy earns there."""

    def of(table: list[dict[str, object]], *options: str) -> dict[str, Any]:
        (shop / "odd.csv").write_bytes(csv(table))
        budget = [] if "--budget" in options else ["--budget", "3"]
        method = ["--folds", "3", "--method", *str(request.param).split()]
        ran = run("fit", "odd.csv", *budget, *method, *options, "-o", "odd.json")
        assert (ran.code, ran.err) == (0, "")
        for argv in (
            ["inspect", "odd.csv"],
            ["show", "odd.json"],
            ["decide", "odd.json", "{}", "--key", "1", "--explain"],
        ):
            assert run(*argv).code == 0
        again = run("replay", "odd.json", "odd.csv", "--json")
        assert again.code == 0
        return dict(json.loads(again.out))

    return of


Fitted = Callable[..., dict[str, Any]]


def always(name: str) -> dict[str, float]:
    return {tier: float(tier == name) for tier in ("small", "large")}


def test_a_single_tier_is_called_and_accepted(fitted: Fitted) -> None:
    found = fitted(rows(conf_large=None, correct_large=None, cost_large=None))
    assert found["calls"] == found["accepts"] == {"small": 1.0}
    assert found["cost"]["mean"] == 1.0
    assert found["gain"]["mean"] == 0.0


@pytest.mark.parametrize("right", [0, 1])
def test_where_every_tier_does_as_well_the_cheapest_is_taken(right: int, fitted: Fitted) -> None:
    found = fitted(rows(correct_small=right, correct_large=right))
    assert found["accepts"] == always("small")
    assert (found["cost"]["mean"], found["quality"]["mean"]) == (1.0, float(right))


@pytest.mark.parametrize("columns", [CONSTANT, UNREAD, {"conf_small": None, "conf_large": None}])
def test_readings_that_say_nothing_are_not_acted_on(columns: dict[str, object], fitted: Fitted) -> None:
    found = fitted(rows(**columns))
    assert found["calls"] == found["accepts"] == pytest.approx({"small": 0.5, "large": 0.5})
    assert found["cost"]["mean"] == pytest.approx(3.0)
    assert found["gain"]["mean"] == pytest.approx(0.0)


def test_a_reading_that_hardly_ever_is_there_is_no_trouble(fitted: Fitted) -> None:
    found = fitted(rows(conf_small=in_row(7, 0.5, "")))
    assert found["cost"]["mean"] <= 3.0 + 0.5
    assert found["gain"]["mean"] > -0.1


def test_where_nothing_costs_anything_the_best_is_had_for_nothing(fitted: Fitted) -> None:
    found = fitted(rows(cost_small=0, cost_large=0), "--budget", "0")
    assert found["cost"]["mean"] == 0.0
    assert found["quality"]["mean"] >= 0.65  # of the better tier alone


def test_equal_prices_are_no_trouble(fitted: Fitted) -> None:
    found = fitted(rows(cost_small=2, cost_large=2))
    assert 2.0 <= found["cost"]["mean"] <= 3.0 + 0.5
    assert found["quality"]["mean"] >= 0.65


def test_a_dearer_tier_that_is_worse_and_says_nothing_is_never_accepted(fitted: Fitted) -> None:
    found = fitted(rows(cost_small=9, cost_large=2, conf_small="", correct_small=0), "--budget", "5")
    assert list(found["calls"]) == ["large", "small"]  # by price
    assert found["accepts"] == always("large") | {"small": 0.0}
    assert found["cost"]["mean"] == 2.0


def test_a_cheapest_tier_that_is_free_is_no_trouble(fitted: Fitted) -> None:
    found = fitted(rows(cost_small=0))
    assert found["cost"]["mean"] <= 3.0 + 0.5
    assert found["gain"]["mean"] > 0.0


def test_the_least_budget_that_a_refusal_names_is_enough(run: Run, shop: Path) -> None:
    (shop / "odd.csv").write_bytes(csv(rows(cost_small=lambda at: 0.1 + at / 997)))
    told = refused(run, shop, ["fit", "odd.csv", "--budget", "0.001"], r"give at least --budget \S+$")
    assert run("fit", "odd.csv", "--folds", "2", *told.split()[-2:]).code == 0


@pytest.mark.parametrize("budget", ["1", "5", "1000000"])
def test_a_budget_at_or_beyond_an_end_is_kept(budget: str, fitted: Fitted) -> None:
    assert fitted(rows(), "--budget", budget)["cost"]["mean"] <= float(budget) * 1.001


READ_AND_WRITTEN = {
    "fit over its log": ["fit", "log.csv", "--budget", "3", "-o", "log.csv"],
    "fit over its log, by another way": ["fit", "log.csv", "--budget", "3", "-o", "../{here}/log.csv"],
    "fit over its log, by a link": ["fit", "log.csv", "--budget", "3", "-o", "link.csv"],
    "fit over its log, which is linked": ["fit", "link.csv", "--budget", "3", "-o", "log.csv"],
    "fit over its log, which has two names": ["fit", "log.csv", "--budget", "3", "-o", "twin.csv"],
    "fit over its key": ["fit", "log.csv", "--budget", "3", "--key-file", "key", "-o", "key"],
    "fit whose signature is over its key": ["fit", "log.csv", "--budget", "3", "--key-file", "key.sig", "-o", "key"],
    "fit over the policy that wrote its log": [
        *("fit", "log.csv", "--budget", "3", "--partial", "--logged-by", "policy.json", "-o", "policy.json")
    ],
    "report over its policy": ["report", "policy.json", "-o", "policy.json"],
    "report over its comparison": ["report", "policy.json", "--comparison", "key", "-o", "key"],
    "compare over its log": ["compare", "log.csv", "-o", "log.csv"],
    "pomdp over its log": ["pomdp", "log.csv", "--price", "0.1", "-o", "log.csv"],
    "certify over its log": ["certify", "policy.json", "log.csv", "--budget", "3", "-o", "log.csv"],
    "certify over its traffic": ["certify", "policy.json", "--traffic", "log.csv", "--budget", "3", "-o", "log.csv"],
    "count over its log": ["count", "log.csv", "-o", "log.csv"],
    "count over one of its logs": ["count", "twin.csv", "link.csv", "-o", "log.csv"],
    "count over a log that a pattern names": ["count", "l[o]*.csv", "-o", "log.csv"],
    "count over its cuts": ["count", "log.csv", "--cuts", "policy.json", "-o", "policy.json"],
    "import over its file": ["import", "wide", "log.csv", "-o", "log.csv"],
    "import over a tier's file": ["import", "lm-eval", "small=key", "large=log.csv", "-o", "log.csv"],
    "join over its labels": ["join", "key", "log.csv", "-o", "log.csv"],
    "simulate over its policy": ["simulate", "independent", "--seen-by", "policy.json", "-o", "policy.json"],
}


@pytest.mark.parametrize("case", READ_AND_WRITTEN)
def test_what_is_read_is_not_written_over(case: str, run: Run, shop: Path) -> None:
    for name in ("key", "key.sig"):
        (shop / name).write_bytes(b"a secret of some length")
        (shop / name).chmod(0o600)
    (shop / "link.csv").symlink_to("log.csv")
    (shop / "twin.csv").hardlink_to(shop / "log.csv")
    argv = [part.format(here=shop.name) for part in READ_AND_WRITTEN[case]]
    refused(run, shop, argv, f"-o {re.escape(argv[-1])} would replace .*, which is read; name another file")


def test_what_only_has_the_name_of_a_word_is_written_over(run: Run, shop: Path) -> None:
    """Options are no files: only a file of that very name would be."""
    (shop / "older.json").write_bytes(KEPT)
    assert run("fit", "log.csv", "--budget", "3", "--folds", "2", "--context", "task", "-o", "older.json").code == 0
    assert (shop / "older.json").read_bytes() != KEPT
    assert (
        run("certify", "policy.json", "log.csv", "--budget", "9", "--delta", "0.4", "-o", "policy.json").err.count(
            "would replace"
        )
        == 0
    )


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices have names there")
@pytest.mark.parametrize("place", ["pipe", "link"])
@pytest.mark.parametrize(
    "argv",
    [
        ["fit", "log.csv", "--budget", "3", "--folds", "2", "-o"],
        ["report", "policy.json", "-o"],
        ["compare", "log.csv", "--folds", "2", "-o"],
        ["certify", "policy.json", "log.csv", "--budget", "3", "-o"],
        ["simulate", "independent", "-n", "9", "-o"],
        ["pomdp", "log.csv", "--price", "0.1", "-o"],
        ["demo", "-o"],
    ],
    ids=lambda argv: argv[0],
)
def test_a_pipe_and_a_device_stay_what_they_are(argv: list[str], place: str, run: Run, shop: Path) -> None:
    place += {"simulate": ".csv", "pomdp": ".pomdp"}.get(argv[0], ".json")
    if place.startswith("pipe"):
        os.mkfifo(shop / place)
    else:
        (shop / place).symlink_to("/dev/null")
    before = (shop / place).lstat()
    refused(run, shop, [*argv, place], rf"{re.escape(place)} is there already, and is no file; name a file")
    assert (shop / place).lstat().st_ino == before.st_ino


@pytest.mark.skipif(os.name != "posix", reason="links need no leave there")
@pytest.mark.parametrize("name", ["new.csv", "new.parquet", "new.jsonl.gz"])
def test_a_log_is_written_where_a_link_leads_and_keeps_its_mode(name: str, run: Run, shop: Path) -> None:
    (shop / "kept").mkdir()
    (shop / name).symlink_to(shop / "kept" / name)
    (shop / "kept" / name).write_bytes(KEPT)
    (shop / "kept" / name).chmod(0o600)
    assert run("simulate", "independent", "-n", "9", "-o", name).code == 0
    assert (shop / name).is_symlink()
    assert (shop / "kept" / name).stat().st_mode & 0o777 == 0o600
    assert run("inspect", name).code == 0


@pytest.mark.skipif(os.name != "posix", reason="there is no such device")
def test_a_key_file_is_read_in_bounds(run: Run, shop: Path) -> None:
    for argv in (["show", "policy.json"], ["fit", "log.csv", "--budget", "3", "-o", "new.json"]):
        refused(run, shop, [*argv, "--key-file", "/dev/zero"], "/dev/zero is larger than 65,536 bytes; no key is")
