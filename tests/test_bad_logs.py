"""What can be wrong with a log is met with a code or a warning, or handled as docs/logs.md states; nothing is silent.

Each fixture is a log made by a few words, what is done with it, and what must be said: of an error its code and the
words that name the place, the value and the way out; of a warning its slug and the words that show the case.
"""

from __future__ import annotations

import ast
import csv as standard_csv
import gzip
import json
import pickle
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from metaverify.cli import main
from metaverify.simulators.log import LogError, LoggedTier, ReplayLog
from metaverify.simulators.reader import read_log, write_log
from tests.test_bad_input import csv, in_row, rows

ROOT = Path(__file__).resolve().parents[1]
INSPECT = ("inspect", "{}")
FIT = ("fit", "{}", "--budget", "3", "--folds", "2")
REPLAY = ("replay", "policy.json", "{}")


def log(count: int = 240, **columns: object) -> list[dict[str, object]]:
    """A sound log: `rows` with confidences that are hardly ever the same, so that what is warned of is the fault."""
    fine = {
        "conf_small": lambda at: round(at * 37 % count / count, 4),
        "conf_large": lambda at: round(at * 53 % count / count, 4),
        "correct_small": lambda at: int(at * 37 % count > count / 2 or at % 5 == 0),
        "correct_large": lambda at: int(at * 53 % count > count / 4 or at % 7 == 0),
    }
    return rows(count, **{**fine, **columns})


def lines(table: Sequence[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in table).encode()


def parquet(table: Sequence[dict[str, object]], **types: Any) -> bytes:
    import io

    buffer = io.BytesIO()
    pl.DataFrame(table).cast(types).write_parquet(buffer)
    return buffer.getvalue()


def flipped(raw: bytes, at: int, bits: int = 0x80) -> bytes:
    return raw[:at] + bytes([raw[at] ^ bits]) + raw[at + 1 :]


@dataclass(frozen=True)
class Bad:
    """A log, what is done with it, and what must be said of it; no code where it is handled."""

    raw: bytes
    code: str
    says: tuple[str, ...] = ()
    name: str = "log.csv"
    argv: tuple[str, ...] = INSPECT


SOUND = csv(log())
LONG = b"query_id,tier,correct,cost\n" + b"".join(
    f"q{at},{tier},{at % 2},{price}\n".encode() for at in range(30) for tier, price in (("s", 1), ("l", 5))
)

FIXTURES: dict[str, Bad] = {
    # confidences
    "NaN confidences": Bad(csv(log(conf_small=in_row(17, "NaN", 0.5))), "constant-confidence", ("conf of small",)),
    "many missing": Bad(csv(log(conf_small=lambda at: "" if at % 2 else at / 240)), "missing-readings", ("50%",)),
    "a reading that is never there": Bad(csv(log(conf_small="nan")), "unobserved-readings", ("conf_small", "left out")),
    "an infinite confidence": Bad(
        csv(log(conf_small=in_row(3, "-inf", 0.5))), "E_RANGE", ("row 3: conf_small is '-inf'",)
    ),
    "percent": Bad(csv(log(conf_small=lambda at: 40 + at % 50)), "E_RANGE", ("row 1: conf_small is 40", "--scale 100")),
    "slightly outside": Bad(
        csv(log(conf_small=in_row(3, 1.0000000002, 0.5))),
        "E_RANGE",
        (r"row 3: conf_small is 1\.0000000002", "correct it"),
    ),
    "whole-number ratings": Bad(
        csv(log(conf_small=lambda at: at % 5 + 1)), "E_RANGE", ("row 2", "rating", "--scale 5")
    ),
    "0 and 1 for confidences": Bad(csv(log(conf_small=lambda at: at % 2)), "few-values", ("conf of small: 2 values",)),
    "a constant confidence": Bad(csv(log(conf_small=0.5)), "constant-confidence", ("conf of small: one value",)),
    "ties": Bad(
        csv(log(conf_large=lambda at: round(at * 53 % 240 / 240 * 4) / 4)), "few-values", ("conf of large: 5",)
    ),
    "1e400 for a confidence": Bad(
        csv(log(conf_small=in_row(5, "1e400", 0.5))), "E_RANGE", ("row 5: conf_small is '1e400'",)
    ),
    "1e400 in JSON": Bad(
        lines(log()).replace(b'"conf_small": 0.1542', b'"conf_small": 1e400'),
        "E_RANGE",
        ("line 2: conf_small", "correct it"),
        "log.jsonl",
    ),
    "a decimal comma": Bad(csv(log(conf_small='"0,5"')), "E_TYPE", ("row 1: conf_small is '0,5'", "decimal point")),
    "a bare decimal comma": Bad(csv(log(conf_small="0,5")), "E_SYNTAX", ("row 1 has 9 fields where the header has 8",)),
    # correctness
    "words for correctness": Bad(
        csv(log(correct_small=in_row(4, "yes", 1))), "E_TYPE", ("row 4: correct_small is 'yes'", "true, false")
    ),
    "mixed truth values": Bad(
        csv(log(correct_small=lambda at: ["true", "Y", "1"][at % 3])),
        "E_TYPE",
        ("row 2: correct_small is 'Y'", "--tiers"),
    ),
    "mixed kinds in JSON": Bad(
        lines(log(correct_small=lambda at: at % 2 == 0 if at > 5 else 1)),
        "E_TYPE",
        ("line 7: correct_small is true", "a number in line 1", "one kind"),
        "log.jsonl",
    ),
    "a number among texts for ids in JSON": Bad(
        lines(log(query_id=lambda at: 7 if at == 6 else f"q{at}")),
        "E_TYPE",
        ("line 7: query_id is 7, a number, but text in line 1", "one kind"),
        "log.jsonl",
    ),
    "truth among texts for ids in JSON": Bad(
        lines(log(query_id=lambda at: at == 0 or f"q{at}")),
        "E_TYPE",
        ('line 2: query_id is "q1", text, but true or false in line 1',),
        "log.jsonl",
    ),
    "a number in quotes among numbers in JSON": Bad(
        lines(log(conf_small=in_row(5, "0.637", 0.5))),
        "E_TYPE",
        ('line 5: conf_small is "0.637", text, but a number in line 1',),
        "log.jsonl",
    ),
    "a confidence of 1 and rounding": Bad(
        csv(log(conf_small=in_row(5, "1.000000000001", 0.5))),
        "E_RANGE",
        ("row 5: conf_small is", "rounding\\? correct it to 1"),
    ),
    "a price too small for any number": Bad(
        csv(log(cost_small=in_row(5, "1e-400", 0.5))),
        "E_RANGE",
        ("row 5: cost_small is 1e-400, too large or too small",),
    ),
    "a tier unobserved in part": Bad(
        csv(log(correct_large=lambda at: "" if at % 5 else 1)),
        "E_MISSING",
        ("row 2: correct_large", "192 of 240", "--tiers"),
    ),
    "a tier unobserved": Bad(
        csv(log(correct_large="")), "E_MISSING", ("row 1: correct_large", "240 of 240", "--tiers$")
    ),
    "all right": Bad(csv(log(correct_small=1, correct_large=1)), "all-right", ("2 of 2 tiers",)),
    "all wrong": Bad(csv(log(correct_small=0, correct_large=0)), "all-wrong", ("2 of 2 tiers",)),
    "a single class": Bad(csv(log(correct_small=0)), "all-wrong", ("1 of 2 tiers", "small")),
    # queries
    "a query twice, the same": Bad(
        csv([*log(), log()[2]]), "E_DUPID", ("row 241: query_id 'q3'", "row 3, with the same", "drop")
    ),
    "a query twice, different": Bad(
        csv([*log(), {**log()[2], "cost_large": 6}]),
        "E_DUPID",
        ("row 241: query_id 'q3'", "row 3, with other", "own id"),
    ),
    "prompts asked again": Bad(
        csv(log(prompt=lambda at: f"p{at % 60}")), "repeated-prompts", ("60 values", "--group prompt")
    ),
    "rows with a twin": Bad(
        csv([{**row, "query_id": f"{row['query_id']}{end}"} for row in log() for end in "ab"]),
        "duplicate-rows",
        ("100%", "group_id"),
    ),
    "no rows": Bad(SOUND.split(b"\n")[0] + b"\n", "E_EMPTY", ("no rows", "write the log again")),
    "nothing": Bad(b"", "E_EMPTY", (r"log\.csv is empty", "again")),
    "one row": Bad(csv(log(1)), "E_FEW", ("only 1 query", "at least 2")),
    "few rows": Bad(csv(log(20)), "few-rows", ("20 rows", "200")),
    "rows of one query that disagree": Bad(
        LONG + b"q0,s,1,1\n", "E_CONFLICT", ("row 61: correct is 1", "earlier row", "agree")
    ),
    # prices
    "a negative price": Bad(
        csv(log(cost_small=in_row(4, -1, 1))), "E_RANGE", ("row 4: cost_small is -1", "--cost small=PRICE")
    ),
    "a price that is NaN": Bad(
        csv(log(cost_small=in_row(4, "nan", 1))), "E_MISSING", ("row 4: cost_small", "--cost small=PRICE")
    ),
    "no price": Bad(csv(log(cost_small=None)), "E_PRICE", ("'small' has no price", "--cost small=PRICE")),
    "a price of nothing": Bad(csv(log(cost_small=0)), "free-tier", ("small",)),
    "equal prices": Bad(csv(log(cost_small=5)), "equal-prices", ("all 2 tiers",)),
    "equal prices compared": Bad(
        csv(log(cost_small=5)),
        "E_EQUAL",
        ("every tier costs the same",),
        argv=("compare", "{}", "--folds", "2", "--jobs", "1"),
    ),
    "prices that overflow": Bad(
        csv(log(cost_small="1e308")), "E_RANGE", ("row 1: cost_small is 1e308", "another unit")
    ),
    "prices too small": Bad(
        csv(log(cost_small=in_row(4, "1e-320", 1))), "E_RANGE", ("row 4: cost_small is 1e-320", "another unit")
    ),
    "weights that overflow": Bad(csv(log(weight=in_row(3, "1e308", 1))), "E_RANGE", ("row 3: weight is 1e308",)),
    "an option that overflows": Bad(SOUND, "E_OPTION", ("small=1e\\+308",), argv=(*INSPECT, "--cost", "small=1e308")),
    "prices the wrong way round": Bad(
        csv(log(cost_small=5, cost_large=1)), "dominated-tier", ("small: .* points below large",)
    ),
    "a larger tier that is worse": Bad(csv(log(correct_large=0)), "dominated-tier", ("large: .* points below small",)),
    "a budget below every tier": Bad(
        SOUND, "E_BUDGET", ("budget 0.3 is below 1", "--budget 1"), argv=("fit", "{}", "--budget", ".3")
    ),
    # files
    "half a Parquet file": Bad(parquet(log())[:900], "E_DAMAGED", (r"log\.parquet", "cut off"), "log.parquet"),
    "half a gzip file": Bad(gzip.compress(SOUND)[:900], "E_DAMAGED", (r"log\.csv\.gz", "pack it again"), "log.csv.gz"),
    "half a CSV file": Bad(SOUND[: len(SOUND) // 2], "E_SYNTAX", (r"row \d+ has \d fields", "cut off")),
    "a CSV file without its last letters": Bad(csv(log(cost_large=5.125))[:-4], "no-newline", ("cut off",)),
    "a flipped bit in gzip": Bad(flipped(gzip.compress(SOUND), 700), "E_DAMAGED", ("pack it again",), "log.csv.gz"),
    "a flipped bit in CSV": Bad(flipped(SOUND, 300), "E_ENCODING", ("byte 301 is 0x", "UTF-8")),
    "a flipped bit in Parquet": Bad(
        flipped(parquet(log()), -2 % len(parquet(log()))), "E_DAMAGED", ("damaged",), "log.parquet"
    ),
    "a row too long": Bad(
        SOUND + b"q,x" + b",1" * 9 + b"\n", "E_SYNTAX", ("row 241 has 11 fields where the header has 8",)
    ),
    "a row too short": Bad(SOUND + b"q,x\n", "E_SYNTAX", ("row 241 has 2 fields where the header has 8",)),
    "a NUL": Bad(SOUND.replace(b"q7,", b"q\x007,", 1), "E_ENCODING", ("byte \\d+ is 0x00",)),
    "UTF-16": Bad(SOUND.decode().encode("utf-16"), "E_ENCODING", ("UTF-16", "save it as UTF-8")),
    **{
        coding: Bad(SOUND.decode().encode(coding), "E_ENCODING", ("is UTF-32 text", "save it as UTF-8"))
        for coding in ("utf-32", "utf-32-le", "utf-32-be")
    },
    "UTF-16 without a mark": Bad(SOUND.decode().encode("utf-16-le"), "E_ENCODING", ("UTF-16", "save it as UTF-8")),
    "another kind of file": Bad(SOUND, "E_FILE", ("no known suffix", r"\.parquet"), "log.xlsx"),
    # ids and columns
    "ids that look like nothing": Bad(
        csv(log(query_id=lambda at: ["NA", "null", "None", "nan"][at] if at < 4 else f"q{at}")), ""
    ),
    "ids of 18 digits": Bad(csv(log(query_id=lambda at: 10**17 + at)), ""),
    "ids of 18 digits as whole numbers": Bad(parquet(log(query_id=lambda at: 10**17 + at)), "", (), "log.parquet"),
    "ids of 18 digits as decimals": Bad(
        parquet(log(query_id=lambda at: 10**17 + 1000 * at), query_id=pl.Float64),
        "E_TYPE",
        ("row 1: query_id is 1e\\+17", "write texts"),
        "log.parquet",
    ),
    "a missing column": Bad(b"query_id,corect_a\nq,1\nr,0\n", "E_COLUMN", ("correct_<tier>", "nearest: 'corect_a'")),
    "columns of other names": Bad(
        b"Request ID,small_ok\nq,1\nr,0\n",
        "E_COLUMN",
        ("it has 'Request ID', 'small_ok'", "`metaverify import wide FILE --map correct_<tier>=COLUMN … -o LOG`"),
    ),
    "a price with its currency": Bad(
        csv(log(cost_small=in_row(3, "$0.25", 0.5))), "E_TYPE", ("row 3", "write the number alone, 0.25, in all rows")
    ),
    "a confidence with its sign": Bad(
        csv(log(conf_small=in_row(3, "73.9 %", 0.5))), "E_TYPE", ("row 3", "write the number alone, 73.9, in all rows")
    ),
    "a misspelt tier": Bad(
        SOUND.replace(b"correct_large", b"corect_large", 1),
        "E_COLUMN",
        ("correct_large", "'corect_large': was that meant"),
    ),
    "a misspelt reading": Bad(
        SOUND.replace(b"conf_large", b"confidence_large", 1), "unused-columns", ("is it conf_large",)
    ),
    "a column twice": Bad(
        SOUND.replace(b"cost_large", b"cost_small", 1), "E_DUPCOL", ("two columns 'cost_small'", "rename")
    ),
    "a key twice in JSON": Bad(
        lines(log()).replace(b'"conf_small": 0.0,', b'"conf_small": 0.0, "conf_small": 0.7,'),
        "E_SYNTAX",
        ("line 1", "'conf_small' stands twice", "keep one"),
        "log.jsonl",
    ),
    "columns that differ in case": Bad(csv(log(Conf_small=0.5)), "look-alike-columns", ("'conf_small', 'Conf_small'",)),
    "a borrowed letter": Bad(
        SOUND.replace(b"conf_large", "\u0441onf_large".encode(), 1), "unused-columns", (r"\\u0441onf_large",)
    ),
    "two ways to write an accent": Bad(
        csv(log(**{f"{kind}_{name}": 1 for kind in ("correct", "cost") for name in ("caf\u00e9", "cafe\u0301")})),
        "look-alike-columns",
        (r"caf\\xe9', 'correct_cafe\\u0301",),
    ),
    "a hidden character in a name": Bad(
        csv(log(**{"correct_a\u202eb": 1, "cost_a\u202eb": 1})), "E_NAME", (r"\\u202e", "rename")
    ),
    "a space that nobody sees in a name": Bad(
        csv(log(**{"correct_a\u200b": 1, "cost_a\u200b": 1})), "E_NAME", (r"'correct_a\\u200b'", "U\\+200B", "rename")
    ),
    "a space at the end of a name": Bad(
        csv(log(**{"correct_a ": 1, "cost_a ": 1})), "E_NAME", ("'correct_a '", "at its end", "rename")
    ),
    "a column without a name": Bad(
        SOUND.replace(b"conf_large", b"", 1), "unnamed-column", ("no name in the header", "name it")
    ),
    # quotes and line ends
    "a quote amid a field": Bad(
        SOUND.replace(b"q8,", b'q"8,', 1),
        "E_SYNTAX",
        ("row 8 has a quote amid a field", "each quote in it twice"),
    ),
    "text after a quote": Bad(
        SOUND.replace(b"q8,", b'"q8" x,', 1),
        "E_SYNTAX",
        ("row 8 has a quote amid a field", "each quote in it"),
    ),
    "a quote that takes four rows for one id": Bad(
        SOUND.replace(b"\nq8,", b'\n"q8,', 1).replace(b"\nq12,", b'\nq12",', 1),
        "line-breaks",
        ("query_id in row 8", "one row of several"),
    ),
    "a quote that takes two rows for one context": Bad(
        b"".join(b'%d,"x\ny",1,1,1,5\n' % at if at == 4 else b"%d,z,1,1,0,5\n" % at for at in range(30)).join(
            [b"query_id,task,correct_small,cost_small,correct_large,cost_large\n", b""]
        ),
        "line-breaks",
        ("task in row 5",),
        argv=(*INSPECT, "--context", "task"),
    ),
    "carriage returns for line ends": Bad(
        SOUND.replace(b"\n", b"\r"), "E_SYNTAX", ("carriage returns alone", "line feeds")
    ),
    "null in CSV": Bad(csv(log(conf_small=in_row(3, "NULL", 0.5))), "constant-confidence", ("conf of small",)),
    "a decision log": Bad(
        lines([{"key": at, "step": 0, "action": "call", "tier": "a", "propensity": 1.0} for at in range(9)]),
        "E_COLUMN",
        ("decision log", "`metaverify join`", "read_decisions"),
        "log.jsonl",
    ),
    # what is asked of it
    "a context that is not there": Bad(
        SOUND, "E_OPTION", ("'tsk'", "did you mean 'task'"), argv=(*INSPECT, "--context", "tsk")
    ),
    "too many tiers": Bad(
        csv(
            log(
                40,
                **{
                    f"{kind}_t{t:02}": t + 1 if kind == "cost" else 1 for t in range(20) for kind in ("correct", "cost")
                },
            )
        ),
        "E_SIZE",
        ("22 tiers", "--tiers"),
        argv=FIT,
    ),
    "a tier that was never called": Bad(
        csv(
            log(
                correct_large=lambda at: at % 3 % 2 if at % 2 else "",
                cost_large=lambda at: 5 if at % 2 else "",
                conf_large=None,
                conf_small=lambda at: 0.2 if at % 2 else 0.8,
                propensity_large=lambda at: at % 2,
            )
        ),
        "E_SUPPORT",
        ("never tried: large where", "50.0% of queries", "--within-support"),
        argv=(*FIT, "--partial"),
    ),
    "records of another format": Bad(
        lines([{"prompt": "?", "answer": "!"}] * 3),
        "E_UNUSABLE",
        (r"log\.jsonl line 1 has no doc_hash", "as 3 of 3", "is it that format"),
        "log.jsonl",
        ("import", "lm-eval", "{}", "-o", "imported.parquet"),
    ),
    "records without labels": Bad(
        lines([{"query_id": f"q{at}", "tier": "small", "cost": 1} for at in range(3)]),
        "E_UNUSABLE",
        ("what was correct", "--map correct=PATH"),
        "log.jsonl",
        ("import", "long", "{}", "-o", "imported.parquet"),
    ),
    "a log of another cascade": Bad(
        SOUND.replace(b"_large", b"_huge"), "E_POLICY", ("'large'", "its own cascade"), argv=REPLAY
    ),
    "a reading of the policy missing": Bad(
        csv(log(conf_small=None)), "E_POLICY", ("'conf' of 'small'", "no reading"), argv=REPLAY
    ),
}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("policy")
    (folder / "log.csv").write_bytes(csv(rows()))
    assert (
        main(["fit", str(folder / "log.csv"), "--budget", "3", "--folds", "2", "-o", str(folder / "policy.json")]) == 0
    )
    return (folder / "policy.json").read_bytes()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: bytes) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.json").write_bytes(policy)
    return tmp_path


def told(bad: Bad, capsys: pytest.CaptureFixture[str], argv: Sequence[str]) -> tuple[int, str, str]:
    Path(bad.name).write_bytes(bad.raw)
    capsys.readouterr()
    return main([word.format(bad.name) for word in argv]), *capsys.readouterr()


@pytest.mark.parametrize("case", FIXTURES)
def test_a_bad_log_is_met_with_its_code_or_handled(case: str, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = FIXTURES[case]
    code, out, err = told(bad, capsys, bad.argv)
    if bad.code.startswith("E_"):
        assert (code, out) == (1, "")
        assert err.startswith(f"metaverify: {bad.code}: ")
        assert len(err.splitlines()) == 1
        text = err.strip()
    else:
        assert (code, err) == (0, "")
        warned = out.partition("\nWARNINGS\n")[2].partition("\n\n")[0]
        slugs = re.findall(r"^  (\S+)", warned, flags=re.MULTILINE)
        assert (bad.code in slugs) if bad.code else not slugs, out
        text = warned.partition(f"  {bad.code} ")[2]
    for pattern in bad.says:
        assert re.search(pattern, text), f"{pattern!r} is not in {text!r}"


@pytest.mark.slow
@pytest.mark.parametrize("case", FIXTURES)
def test_what_is_wrong_is_said_by_a_fit_as_well(case: str, shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = FIXTURES[case]
    if bad.argv != INSPECT:
        pytest.skip("is about another command")
    code, out, err = told(bad, capsys, ("fit", "{}", "--price", "0.01", "--folds", "2", "--method", "chain"))
    if bad.code.startswith("E_"):
        assert (code, out, err.startswith(f"metaverify: {bad.code}: ")) == (1, "", True)
    else:
        assert (code, err) == (0, "")
        assert not bad.code or f"warning {bad.code}: " in out


def test_a_split_by_time_cannot_be_asked_for(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (shop / "log.csv").write_bytes(SOUND)
    with pytest.raises(SystemExit):
        main(["fit", "log.csv", "--budget", "3", "--split", "time"])
    assert "unrecognized arguments: --split time" in capsys.readouterr().err


def test_ids_that_look_like_something_else_are_kept(tmp_path: Path) -> None:
    for name in ("ids that look like nothing", "ids of 18 digits", "ids of 18 digits as whole numbers"):
        (tmp_path / FIXTURES[name].name).write_bytes(FIXTURES[name].raw)
        ids = read_log(tmp_path / FIXTURES[name].name).query_ids
        assert len(set(ids)) == 240
        assert ids[:4].tolist() in (["NA", "null", "None", "nan"], [str(10**17 + at) for at in range(4)])


# Writing -------------------------------------------------------------------------------------------------------------

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-1", '=HYPERLINK("x")', "plain", "'tis", "a=b"]


def test_no_text_that_we_write_is_a_formula_and_each_reads_back(tmp_path: Path) -> None:
    ids, one = np.array(FORMULAS, dtype=object), np.ones(len(FORMULAS))
    written = ReplayLog(ids, (LoggedTier("a", one, one),), one, ids[::-1], contexts=ids)
    for name in ("log.csv", "log.csv.gz", "log.parquet", "log.jsonl"):
        write_log(written, tmp_path / name)
        found = read_log(tmp_path / name, context="context")
        assert found.query_ids.tolist() == FORMULAS
        assert found.contexts is not None
        assert (found.contexts.tolist(), found.group_ids.tolist()) == (FORMULAS, FORMULAS[::-1])
    with (tmp_path / "log.csv").open(newline="") as file:
        cells = [cell for row in standard_csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert {"'=1+1", "plain", "'tis", "a=b"} <= set(cells)


def test_a_nul_is_not_written_to_csv(tmp_path: Path) -> None:
    ids = np.array(["a\0", "b"], dtype=object)
    written = ReplayLog(ids, (LoggedTier("a", np.ones(2), np.ones(2)),), np.ones(2), ids)
    with pytest.raises(LogError, match=r"^E_ENCODING: log\.csv: .*NUL.*write \.parquet"):
        write_log(written, tmp_path / "log.csv")
    write_log(written, tmp_path / "log.jsonl")
    assert read_log(tmp_path / "log.jsonl").query_ids.tolist() == ["a\0", "b"]


# The codes -----------------------------------------------------------------------------------------------------------


def raised() -> Iterator[str]:
    """The codes with which the sources refuse a log."""
    for room in ("simulators", "fitting", "metaverify"):
        for path in (ROOT / room).glob("**/*.py"):
            for call in ast.walk(ast.parse(path.read_text())):
                if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant):
                    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                    if name in ("LogError", "refuse", "error"):
                        yield str(call.args[0].value)


def documented(pattern: str) -> list[str]:
    return re.findall(rf"^\| `({pattern})` \|", (ROOT / "docs" / "logs.md").read_text(), flags=re.MULTILINE)


def test_each_code_is_documented_once_raised_somewhere_and_shown_by_a_fixture() -> None:
    codes = documented(r"E_[A-Z]+")
    assert len(codes) == len(set(codes))
    assert set(codes) == {*raised(), "E_BUDGET"}
    beside_others = {"E_DEAREST", "E_INSAMPLE", "E_LABELS"}  # a policy or labels: test_cli_certify, test_cli_partial
    assert set(codes) - beside_others == {bad.code for bad in FIXTURES.values() if bad.code.startswith("E_")}


def test_each_warning_of_a_fixture_is_documented() -> None:
    slugs = documented(r"[a-z]+(?:-[a-z]+)+")
    assert len(slugs) == len(set(slugs))
    assert {bad.code for bad in FIXTURES.values() if bad.code and not bad.code.startswith("E_")} <= set(slugs)
    rooms = (ROOT / "simulators", ROOT / "metaverify" / "commands")
    sources = "".join(path.read_text() for room in rooms for path in room.glob("*.py"))
    assert not [slug for slug in slugs if f'"{slug}"' not in sources]
    made = re.findall(r'(?:LogWarning|_Fault)\(\s*"([a-z-]+)"', sources)
    assert set(made) <= set(slugs)


def test_a_refusal_survives_the_way_between_processes() -> None:
    error = pickle.loads(pickle.dumps(LogError("E_RANGE", "log.csv row 1: x is 2")))
    assert (error.code, error.message, str(error)) == (
        "E_RANGE",
        "log.csv row 1: x is 2",
        "E_RANGE: log.csv row 1: x is 2",
    )
