"""`metaverify simulate`."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from metaverify.options import add_seed, number, whole
from metaverify.output import print_json, progress, working

if TYPE_CHECKING:
    from metaverify.simulators.worlds import World

__all__ = ["EXAMPLE", "add", "piece_name", "run"]

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
    parser.add_argument(
        "--pieces",
        type=whole("pieces", 1),
        default=1,
        help="files to write, one drawn after the other: log-0001.parquet, log-0002.parquet, … (default: %(default)s)",
    )
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
    if options.pieces > 1:
        _write_pieces(options, world)
        return
    with working("drawing"):
        log = world.draw(options.number, options.seed)
    if options.seen_by is None:
        with working("writing"):
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
    _say(options, options.out, len(log), log.tier_names)


def _write_pieces(options: argparse.Namespace, world: World) -> None:
    """A log in several files, of which only one is in memory at a time."""
    from metaverify.simulators.reader import write_log

    if options.seen_by is not None:
        raise ValueError("--pieces and --seen-by do not go together: what a router saw is written in one file")
    if options.pieces > options.number:
        raise ValueError(f"{options.pieces} pieces of {options.number} queries: give fewer pieces")
    ends = [options.number * at // options.pieces for at in range(options.pieces + 1)]
    with progress() as tell:
        for at, (first, last) in enumerate(pairwise(ends), start=1):
            log = world.draw(last - first, [options.seed, at], first=first + 1)
            write_log(log, piece_name(options.out, at))
            tell(f"piece {at}", at / options.pieces)
    _say(options, piece_name(options.out, "*"), options.number, world.tiers)


def piece_name(out: str, at: int | str) -> str:
    """The name of one piece of a log.

    Example:
        >>> piece_name("drawn/log.csv.gz", 7), piece_name("log.parquet", "*")
        ('drawn/log-0007.csv.gz', 'log-*.parquet')
    """
    path = pathlib.Path(out)
    stem, dot, suffix = path.name.partition(".")
    return str(path.with_name(f"{stem}-{at if isinstance(at, str) else f'{at:04d}'}{dot}{suffix}"))


def _say(options: argparse.Namespace, out: str, rows: int, tiers: Sequence[str]) -> None:
    if options.json:
        print_json({"out": out, "rows": rows, "tiers": list(tiers)})
    else:
        print(f"wrote {out}: {rows:,} queries, tiers {', '.join(tiers)}")
