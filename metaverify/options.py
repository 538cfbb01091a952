"""Options that several commands have, and their types."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

__all__ = [
    "add_in_use",
    "add_key",
    "add_log",
    "add_partial",
    "add_policy",
    "add_promise",
    "add_seed",
    "check_partial",
    "number",
    "whole",
]


def add_log(parser: argparse.ArgumentParser, times: str | None = None) -> None:
    """A log, and how its columns are to be taken; ``times`` is argparse's ``nargs``, where there is not exactly one."""
    parser.add_argument("log", nargs=times, help="a log: .parquet, .csv or .jsonl, wide or long")
    parser.add_argument("--tiers", help="the tiers and signals to use, by name, separated by commas (default: all)")
    parser.add_argument(
        "--signal",
        action="append",
        default=[],
        metavar="NAME[=TIER,TIER]",
        help="a source without answers (a judge, a detached verifier), and the tiers that must have answered first",
    )
    parser.add_argument(
        "--votes",
        action="append",
        default=[],
        metavar="READING=K",
        help="a reading that is the share of K votes, which can be asked for one by one",
    )
    parser.add_argument(
        "--samples", help="readings that change the answer (correct2_<tier> beside conf2_<tier>), separated by commas"
    )
    parser.add_argument(
        "--context", help="columns known before any call, separated by commas; a number with its bins, as in tokens:4"
    )
    parser.add_argument("--cost", action="append", default=[], metavar="TIER=PRICE", help="a tier's price per call")
    parser.add_argument("--scale", type=float, default=1.0, help="divide confidences by this (100 for percent)")
    parser.add_argument("--group", help="column of what is drawn together (default: group_id, where there is one)")
    parser.add_argument("--weight", help="column of how many queries a row stands for (default: weight)")


def add_partial(parser: argparse.ArgumentParser) -> None:
    """How a log came to be in which tiers were called for some queries only."""
    parser.add_argument(
        "--partial",
        action="store_true",
        help="the log knows tiers and labels for some queries only; propensity_<tier> says with which chance",
    )
    parser.add_argument(
        "--logged-by", metavar="FILE", help="of a partial log without propensities: the policy that wrote it"
    )
    parser.add_argument(
        "--epsilon",
        type=number("epsilon", 0.0, 1.0),
        default=0.0,
        help="with --logged-by: the share of queries for which every tier was called (default: %(default)g)",
    )


def check_partial(options: argparse.Namespace) -> None:
    """Make sure that what is said of a partial log is said of one.

    Raises:
        ValueError: an option would say nothing.
    """
    for name in ("logged_by", "epsilon", "within_support"):
        if getattr(options, name, None) and not options.partial:
            raise ValueError(f"--{name.replace('_', '-')} is of a partial log: give --partial too, or leave it out")
    if options.epsilon and options.logged_by is None:
        raise ValueError("--epsilon says what the policy explored that wrote the log: name it with --logged-by")


def add_policy(parser: argparse.ArgumentParser) -> None:
    """A policy file."""
    parser.add_argument("policy", help="a policy file")


def add_in_use(parser: argparse.ArgumentParser) -> None:
    """How the policy stands: its dial, and what is down."""
    parser.add_argument("--without", help="tiers that are down, separated by commas (see fit --outages)")
    add_key(parser)
    goal = parser.add_mutually_exclusive_group()
    goal.add_argument("--budget", type=float, help="turn the dial to this mean cost per query")
    goal.add_argument("--price", type=number("price", 0.0), help="turn the dial to this quality per unit of cost")


def add_key(parser: argparse.ArgumentParser, what: str = "refuse a file that was not signed with this key") -> None:
    """The file of a key, and ``what`` is done with it."""
    parser.add_argument("--key-file", metavar="FILE", help=what)


def add_promise(parser: argparse.ArgumentParser, *, delta: float | None) -> None:
    """How certain a promise is, and what of; ``delta`` is the default chance that it is broken."""
    stated = "" if delta is None else " (default: %(default)g)"
    parser.add_argument(
        "--delta",
        type=number("delta", 1e-9, 0.499),
        default=delta,
        help=f"the chance with which the promise may be broken{stated}",
    )
    parser.add_argument(
        "--dearest",
        metavar="M",
        type=number("dearest", 0.0),
        help="the most that a query can cost, kept by the run time's cap (default: by the policy's prices)",
    )
    parser.add_argument(
        "--next",
        metavar="QUERIES",
        type=whole("next", 1),
        default=0,
        help="promise the mean cost of the next so many queries, not their expectation",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Where all that is drawn begins."""
    parser.add_argument("--seed", type=whole("seed", 0), default=0, help="of everything drawn (default: %(default)s)")


def whole(name: str, least: int, most: int | None = None) -> Callable[[str], int]:
    """The type of an option that is a whole number from ``least`` up, to ``most`` if that is given."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{name} is {text}, not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{name} is {text}; give at least {least}")
        if most is not None and value > most:
            raise argparse.ArgumentTypeError(f"{name} is {text}; give at most {most}")
        return value

    return parse


def number(name: str, low: float, high: float = math.inf) -> Callable[[str], float]:
    """The type of an option that is a finite number in [low, high]."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{name} is {text}, not a number") from None
        if not (math.isfinite(value) and low <= value <= high):
            upper = "" if high == math.inf else f" and at most {high:g}"
            raise argparse.ArgumentTypeError(f"{name} is {text}; give a finite number of at least {low:g}{upper}")
        return value

    return parse
