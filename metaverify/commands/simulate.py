"""`metaverify simulate`."""

from __future__ import annotations

import argparse

from metaverify.options import add_seed, number, whole
from metaverify.output import print_json

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify simulate shared_difficulty -n 5000 -o log.parquet"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "world",
        choices=("shared_difficulty", "hopeless", "independent", "useless_verifier", "token_prices"),
        metavar="WORLD",
        help="%(choices)s",
    )
    parser.add_argument(
        "-n", "--number", type=whole("number", 1), default=1000, help="of queries (default: %(default)s)"
    )
    parser.add_argument("-o", "--out", required=True, help="the log to write: .parquet, .csv, .jsonl (.gz)")
    parser.add_argument(
        "--tiers", dest="tier_count", type=int, choices=(2, 3, 4, 5), default=3, help="how many (default: %(default)s)"
    )
    parser.add_argument(
        "--levels", type=whole("levels", 1), default=8, help="values of a confidence (default: %(default)s)"
    )
    parser.add_argument("--missing", type=float, default=0.0, help="share of readings missing (default: %(default)s)")
    parser.add_argument("--seen-by", metavar="FILE", help="leave what a router with this policy would see of it")
    explored = parser.add_mutually_exclusive_group()
    explored.add_argument(
        "--epsilon",
        type=number("epsilon", 0.0, 1.0),
        default=0.0,
        help="with --seen-by: the share of queries for which it calls every tier (default: %(default)g)",
    )
    explored.add_argument("--exploration", metavar="FILE", help="with --seen-by: what `metaverify explore` wrote")
    add_seed(parser)


def run(options: argparse.Namespace) -> None:
    """Draw a log from a synthetic world."""
    from metaverify.simulators.reader import write_log
    from metaverify.simulators.worlds import WORLDS

    world = WORLDS[options.world](options.tier_count, options.levels, missing=options.missing)
    log = world.draw(options.number, options.seed)
    if options.seen_by is None:
        write_log(log, options.out)
    else:
        from metaverify.policies.exploration import Exploration, load_exploration
        from metaverify.policies.file import load_policy
        from metaverify.simulators.partial_reader import write_partial_log
        from metaverify.simulators.trace import observed_by

        named = options.exploration
        exploration = Exploration(options.epsilon) if named is None else load_exploration(named)
        partial = observed_by(load_policy(options.seen_by), log, exploration)
        write_partial_log(partial, options.out)
    if options.json:
        print_json({"out": options.out, "rows": len(log), "tiers": list(log.tier_names)})
    else:
        print(f"wrote {options.out}: {len(log):,} queries, tiers {', '.join(log.tier_names)}")
