"""`metaverify shadow`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from metaverify.arguments import parse_names
from metaverify.inputs import in_use, read, read_for, read_policy
from metaverify.options import add_in_use, add_log, add_policy, number
from metaverify.output import print_json

if TYPE_CHECKING:
    from metaverify.policies.policy import Policy
    from metaverify.simulators.shadowing import Side

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify shadow candidate.json decisions.jsonl --labels labels.csv"
DETAILS = (
    "The log is a router's decision log (DecisionLog), which says what the policy in use did, or any log that\n"
    "replay reads, with that policy as --live.  Where the candidate wants what nobody bought, what it would have\n"
    "cost and earned is not known, and counted so (docs/shadow.md)."
)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = f"{parser.description}\n{DETAILS}"
    add_policy(parser)
    add_log(parser)
    add_in_use(parser)
    parser.add_argument("--live", metavar="POLICY", help="the policy in use, where the log is not of its decisions")
    parser.add_argument(
        "--labels", metavar="FILE", help="of a decision log: which answers were right, as join reads them"
    )
    parser.add_argument("--by", help="of other logs: columns to look at apart, such as a day, separated by commas")
    parser.add_argument(
        "--quality-margin",
        metavar="POINTS",
        type=number("quality-margin", 0.0, 100.0),
        default=1.0,
        help="by how many points quality may fall (default: %(default)g)",
    )
    parser.add_argument(
        "--cost-margin",
        metavar="SHARE",
        type=number("cost-margin", 0.0),
        default=0.05,
        help="by which share the cost may rise (default: %(default)g)",
    )


def run(options: argparse.Namespace) -> None:
    """What a candidate would have changed, and whether it is safe to turn on."""
    from metaverify.report import shadow_table
    from metaverify.simulators.shadowing import Margins, compare_decisions, is_decision_log, report_of

    filed = read_policy(options)
    candidate = in_use(filed, options)
    if is_decision_log(options.log):
        if options.live is not None or options.by is not None:
            raise ValueError(f"{options.log} is a decision log, which tells the policy in use and the day itself")
        side = compare_decisions(candidate, options.log, _labels(options))
    else:
        side = _replayed(candidate, filed, options)
    found = report_of(side, Margins(options.quality_margin / 100, options.cost_margin))
    if options.json:
        print_json(found.to_json())
        return
    print(shadow_table(found))


def _labels(options: argparse.Namespace) -> Any:
    from metaverify.simulators.decisions import read_labels

    return None if options.labels is None else read_labels(options.labels)


def _replayed(candidate: Policy, filed: Policy, options: argparse.Namespace) -> Side:
    from metaverify.policies.file import load_policy
    from metaverify.simulators.shadowing import compare_routes

    if options.live is None:
        raise ValueError(f"{options.log} is no decision log; say with --live which policy is in use")
    if options.labels is not None:
        raise ValueError(f"{options.log} is no decision log; it has its labels in its own columns")
    live = load_policy(options.live)
    log = read_for(filed, options, beside=live)
    slices = {column: read(options, context=(column,)).contexts for column in parse_names(options.by) or ()}
    return compare_routes(candidate, live, log, slices)
