"""Tables for people: columns line up, figures are rounded as they say, and what is exact has no interval."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from dataclasses import replace

import pytest

from metaverify.fitting.fit import Fit, Reference
from metaverify.policies.actions import Accept
from metaverify.policies.graph import Ask, Stop
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Reading, Tier
from metaverify.report import fit_table, outcome_table, peak_memory, table
from metaverify.simulators.outcome import Estimate, Outcome

CONF = Reading("conf", 0.0, (), (0, 0))
VOTES = Reading("votes", 0.5, (), (0, 0))
POLICY = Policy(
    tiers=(Tier("small", 1.0, (CONF, VOTES)), Tier("large", 10.0, (CONF,))),
    nodes=(Ask("small", 1), Stop(Accept("small"))),
    vertices=(Vertex(0.25, 1.0, 0.5, 0),),
    point=OperatingPoint(0, 0, 0.0, 2.5),
)
OUTCOME = Outcome(
    n=12_345,
    groups=12_345,
    quality=Estimate(0.71234, 0.70004, 0.72464),
    cost=Estimate(2.5, 2.4, 2.6),
    hull=0.7,
    gain=Estimate(0.01234, -0.0005, 0.02518),
    calls={"small": 1.0, "large": 0.16666},
    reads={"small": {"conf": 1.0, "votes": 0.25}, "large": {"conf": 0.0}},
    accepts={"small": 0.9, "large": 0.1},
    abstained=0.0,
)
FIT = Fit(
    POLICY,
    OUTCOME,
    (
        Reference("thresholds", Estimate(2.5, 2.4, 2.6), Estimate(0.7, 0.69, 0.71), Estimate(0.0, -0.01, 0.01)),
        Reference("always large", Estimate(10.0, 10.0, 10.0), Estimate(0.9, 0.9, 0.9), Estimate(-1e-9, -1e-9, -1e-9)),
        Reference("oracle", Estimate(3.0, 3.0, 3.0), Estimate(0.95, 0.95, 0.95)),
    ),
    ("a first remark", "a second one"),
)


# ---------------------------------------------------------------------------------------------------- one table


def test_the_first_column_is_aligned_left_and_the_others_right() -> None:
    assert table(["tier", "share"], [["a", "1"], ["longer", "10.5 %"]]).splitlines() == [
        "tier     share",
        "------  ------",
        "a            1",
        "longer  10.5 %",
    ]


def test_a_table_without_rows_is_its_head() -> None:
    assert table(["tier", "share"], []) == "tier  share\n----  -----"


def test_no_line_of_a_table_ends_in_blanks() -> None:
    text = table(["a", "b", "c"], [["x", "", ""], ["", "yyyy", ""]])
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


def test_a_row_of_another_width_is_a_mistake() -> None:
    with pytest.raises((ValueError, IndexError)):
        table(["a", "b"], [["x"]])


# -------------------------------------------------------------------------------------------------- whole reports


def test_the_report_of_a_fit_reads_so() -> None:
    assert fit_table(FIT) == (
        "budget 2.5; 12,345 queries; gain is quality above the hull of fixed tiers at the same cost\n"
        "\n"
        "cross-fitted  cost  quality     90 % interval  gain, points   90 % interval\n"
        "------------  ----  -------  ----------------  ------------  --------------\n"
        "this policy    2.5   0.7123  [0.7000, 0.7246]         +1.23  [-0.05, +2.52]\n"
        "thresholds     2.5   0.7000  [0.6900, 0.7100]         +0.00  [-1.00, +1.00]\n"
        "always large    10   0.9000                           +0.00\n"
        "oracle           3   0.9500\n"
        "\n"
        "share of queries  called  conf read  votes read  accepted\n"
        "----------------  ------  ---------  ----------  --------\n"
        "small             100.0%     100.0%       25.0%     90.0%\n"
        "large              16.7%       0.0%                 10.0%\n"
        "\n"
        "certificate: none\n"
        "\n"
        "note: a first remark\n"
        "\n"
        "note: a second one\n"
    )


def test_the_report_of_a_replay_reads_so() -> None:
    assert outcome_table(OUTCOME) == (
        "12,345 queries                                     mean     90 % interval\n"
        "-----------------------------------------------  ------  ----------------\n"
        "cost per query                                      2.5        [2.4, 2.6]\n"
        "quality                                          0.7123  [0.7000, 0.7246]\n"
        "quality of the no-information hull at this cost  0.7000\n"
        "gain over it, points                              +1.23    [-0.05, +2.52]\n"
        "\n"
        "share of queries  called  conf read  votes read  accepted\n"
        "----------------  ------  ---------  ----------  --------\n"
        "small             100.0%     100.0%       25.0%     90.0%\n"
        "large              16.7%       0.0%                 10.0%\n"
    )


def test_a_fit_at_a_price_says_the_price() -> None:
    priced = replace(FIT, policy=replace(POLICY, point=OperatingPoint(0, 0, 0.0, price=0.25)))
    assert fit_table(priced).startswith("price 0.25; 12,345 queries;")


def test_groups_are_counted_where_there_are_any() -> None:
    assert outcome_table(replace(OUTCOME, groups=1_000)).startswith("12,345 queries in 1,000 groups ")


def test_what_is_handed_over_has_a_row_of_its_own_and_only_then() -> None:
    assert "handed over" not in outcome_table(OUTCOME)
    handed = replace(OUTCOME, abstained=0.125)
    for text in (outcome_table(handed), fit_table(replace(FIT, outcome=handed))):
        row = next(line for line in text.splitlines() if line.startswith("(handed over)"))
        assert row.split() == ["(handed", "over)", "12.5%"]
        assert row.endswith("12.5%")
        assert len(row) == len("share of queries  called  conf read  votes read  accepted")


def test_a_cascade_that_reads_nothing_has_no_column_of_readings() -> None:
    unread = replace(OUTCOME, reads={"small": {}, "large": {}})
    assert "share of queries  called  accepted\n" in outcome_table(unread)


@pytest.mark.parametrize("nothing", [-0.0, -1e-9, -4e-5, 0.0, 1e-9])
def test_a_gain_that_rounds_to_nothing_has_no_minus(nothing: float) -> None:
    exactly = Estimate(nothing, nothing, nothing)
    reference = Reference("mixed", Estimate(1.0, 1.0, 1.0), Estimate(0.5, 0.4, 0.6), exactly)
    text = fit_table(replace(FIT, outcome=replace(OUTCOME, gain=exactly), references=(reference,)))
    assert "-0.00" not in text
    assert text.count("+0.00") == 2


def test_nor_has_one_in_a_replay_or_at_an_end_of_an_interval() -> None:
    nothing = Estimate(-1e-9, -2e-9, 1e-9)
    assert "-0.00" not in fit_table(replace(FIT, outcome=replace(OUTCOME, gain=nothing)))
    assert "-0.00" not in outcome_table(replace(OUTCOME, gain=nothing))


def test_an_interval_without_end_is_told_as_one() -> None:
    endless = Estimate(0.5, float("-inf"), float("inf"))
    text = outcome_table(replace(OUTCOME, groups=1, quality=endless, cost=endless, gain=endless))
    assert len(re.findall(r"\[-inf, \+?inf\]", text)) == 3


@pytest.mark.parametrize("cost", [1.23456e-7, 0.000517, 2.5, 12_345.678, 9.87e12])
def test_costs_of_any_size_keep_their_leading_figures(cost: float) -> None:
    fixed = replace(OUTCOME, cost=Estimate(cost, cost, cost))
    row = next(line for line in fit_table(replace(FIT, outcome=fixed)).splitlines() if line.startswith("this policy"))
    assert float(row.split()[2]) == pytest.approx(cost, rel=1e-3)
    row = next(line for line in outcome_table(fixed).splitlines() if line.startswith("cost per query"))
    assert float(row.split()[3]) == pytest.approx(cost, rel=1e-3)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what other processes hold")
def test_peak_memory_is_this_process_and_those_it_started() -> None:
    alone = peak_memory()
    own = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert alone is not None
    assert alone >= 0.95 * own
    code = "held = bytearray(100_000_000); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        together = peak_memory()
        child.communicate("\n")
    assert together is not None
    assert together - alone > 95_000_000
