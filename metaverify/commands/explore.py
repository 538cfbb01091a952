"""`metaverify explore`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from metaverify.inputs import read_for
from metaverify.options import add_log, number, whole
from metaverify.output import check_out, print_json, working

if TYPE_CHECKING:
    from metaverify.simulators.exploration_plan import ExplorationPlan

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify explore new.json old.json log.parquet --traffic 20000 --precision 0.01 -o exploration.json"
DETAILS = (
    "In each bin of an answer's first reading as many requests are explored as tell most for their cost.\n"
    "What is written is for a router: Router(policy, call, exploration=load_exploration('exploration.json'))."
)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = f"{parser.description}\n{DETAILS}"
    parser.add_argument("new", help="the policy file whose value is to be known, at its operating point")
    parser.add_argument("old", help="the policy file that runs meanwhile")
    add_log(parser)
    parser.add_argument("--traffic", type=whole("traffic", 1), required=True, help="how many queries will be routed")
    parser.add_argument(
        "--precision",
        type=number("precision", 0.0, 1.0),
        required=True,
        help="the standard error that is wanted, in quality: 0.01 is a point",
    )
    parser.add_argument(
        "--least",
        type=number("least", 0.0, 1.0),
        default=0.01,
        help="the rate of every bin at least, so that other policies can be valued too (default: %(default)g)",
    )
    parser.add_argument(
        "--labelled",
        type=number("labelled", 0.0, 1.0),
        default=1.0,
        metavar="SHARE",
        help="the share of answers that will be labelled, explored ones too (default: all)",
    )
    parser.add_argument("--salt", default="", help="another one explores other requests")
    parser.add_argument("-o", "--out", help="the file to write, for `load_exploration`")


def run(options: argparse.Namespace) -> None:
    """How much to explore and where."""
    from metaverify.policies.exploration import save_exploration
    from metaverify.policies.file import load_policy
    from metaverify.simulators.exploration_plan import plan_exploration

    check_out(options.out)
    new, old = load_policy(options.new), load_policy(options.old)
    log = read_for(new, options, beside=old)
    told = {
        "traffic": options.traffic,
        "precision": options.precision,
        "least": options.least,
        "labelled": options.labelled,
    }
    with working("planning"):
        plan = plan_exploration(new, old, log, **told)
    if options.out is not None:
        save_exploration(plan.exploration(options.salt), options.out)
    if options.json:
        print_json({**plan.to_json(), "out": options.out})
        return
    print(_table(plan))
    none = "no file was written; -o exploration.json writes one"
    print(none if options.out is None else f"wrote {options.out}")


def _table(plan: ExplorationPlan) -> str:
    """The plan in words and figures."""
    from metaverify.report import table

    head = ["explored where", "traffic", "rate", "explored", "cost", "uncertainty"]
    rows = [
        [of.where, f"{of.share:.1%}", f"{of.rate:.2%}", f"{of.explored:,.0f}", f"{of.cost:.4g}", f"{of.part:.1%}"]
        for of in plan.bins
    ]
    explored = sum(of.explored for of in plan.bins)
    share = sum(of.share for of in plan.bins)
    rows.append(["", f"{share:.1%}", "", f"{explored:,.0f}", f"{plan.cost:.4g}", ""])
    some = "all" if plan.labelled == 1.0 else f"{plan.labelled:.3g} of the"
    lines = [
        f"the quality of the new policy to {100 * plan.precision:.3g} points (standard error), from {plan.traffic:,} "
        f"queries of which {some} answers are labelled; cost is what a query costs more",
        "",
        table(head, rows),
        "",
        f"explored alike everywhere, the same precision costs {plan.alike:.4g} a query",
    ]
    return "\n".join(lines)
