"""The options of the command line."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

__all__ = ["MODEL_NAMES", "build_parser"]

MODEL_NAMES = (
    "default",
    "copula",
    "patterns",
    "latent",
    "kernel",
    "counts",
    "platt",
    "isotonic",
    "automix-counts",
    "automix-kde",
)

Run = Callable[[argparse.Namespace], None]


def build_parser(run: Mapping[str, Run]) -> argparse.ArgumentParser:
    """The parser of the whole command line; ``run`` has what each command does."""
    parser = argparse.ArgumentParser(
        prog="metaverify",
        description="Learn from logs when to trust a cheap model, look again, or pay for a better one.",
        epilog="Start with: metaverify demo",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _demo(commands, run["demo"])
    _inspect(commands, run["inspect"])
    _fit(commands, run["fit"])
    _compare(commands, run["compare"])
    _pomdp(commands, run["pomdp"])
    _certify(commands, run["certify"])
    _replay(commands, run["replay"])
    _decide(commands, run["decide"])
    _show(commands, run["show"])
    _report(commands, run["report"])
    _simulate(commands, run["simulate"])
    return parser


def _demo(commands: Any, run: Run) -> None:
    demo = _command(commands, "demo", run, "the whole road on a log that ships with the package", "metaverify demo")
    demo.add_argument("--budget", type=float, default=2.0, help="mean cost per query (default: %(default)g)")
    demo.add_argument("-o", "--out", default="digits-policy.json", help="the policy file (default: %(default)s)")
    _seed(demo)


def _inspect(commands: Any, run: Run) -> None:
    inspect = _command(
        commands, "inspect", run, "what is in a log, and what is wrong with it", "metaverify inspect log.parquet"
    )
    _log(inspect)


def _fit(commands: Any, run: Run) -> None:
    fit = _command(
        commands,
        "fit",
        run,
        "learn a policy from a log",
        "metaverify fit log.parquet --budget 2.2 --context task -o policy.json",
    )
    _log(fit)
    _partial(fit)
    fit.add_argument(
        "--within-support",
        action="store_true",
        help="of a partial log: learn although some tiers were never called in places, and do not call them there",
    )
    goal = fit.add_mutually_exclusive_group(required=True)
    goal.add_argument("--budget", type=float, help="mean cost per query, in the log's unit")
    goal.add_argument(
        "--price", type=_number("price", 0.0), help="instead of a budget: quality that a unit of cost must earn"
    )
    goal.add_argument(
        "--quality-floor",
        metavar="Q",
        type=_number("quality floor", 0.0, 1.0),
        help="instead of a budget: the cheapest policy that earns this quality; with --delta it certainly does",
    )
    fit.add_argument(
        "--certify",
        nargs="?",
        choices=("approximate", "finite-sample"),
        const="finite-sample",
        metavar="LEVEL",
        help="certify the budget: finite-sample, on three quarters of the log that are held out, or approximate, on "
        "all of it (default without a level: finite-sample)",
    )
    _promise(fit, delta=None)
    fit.add_argument("-o", "--out", help="the policy file")
    _edition(fit)
    fit.add_argument(
        "--method",
        choices=("auto", "chain", "lattice", "thresholds", "optuna"),
        default="auto",
        help="auto: what cross-fitting prefers; chain, lattice: cuts on the model's table, or its exact solution; "
        "thresholds: cuts on the log's rows; optuna: cuts, tiers and their order tuned on the rows",
    )
    _tuning(fit)
    fit.add_argument(
        "--model",
        choices=MODEL_NAMES,
        default="default",
        metavar="MODEL",
        help="of what confidences are worth: %(choices)s (default: copula and patterns averaged)",
    )
    fit.add_argument(
        "--pooling",
        choices=("average", "offsets"),
        default="average",
        help="how contexts learn from each other: their tables averaged with the pooled one, or its qualities moved "
        "by one offset a tier (default: %(default)s)",
    )
    fit.add_argument("--readings", help="readings to use, by name (default: all)")
    fit.add_argument(
        "--bins",
        type=_whole("bins", 1),
        help="the most bins of a reading (default: 8, as many as are useful for thresholds)",
    )
    fit.add_argument(
        "--solver",
        choices=("lattice", "pomdp-py:pouct", "pomdp-py:value-iteration"),
        default="lattice",
        help="lattice: exact; pomdp-py: its planners, for comparison (default: %(default)s)",
    )
    fit.add_argument(
        "--simulations",
        type=_whole("simulations", 1),
        default=1000,
        help="of a decision of pomdp-py:pouct (default: %(default)s)",
    )
    fit.add_argument(
        "--abstain",
        type=_number("abstain", 0.0, 1.0),
        help="worth of handing a query over, in quality (default: never)",
    )
    fit.add_argument("--folds", type=_whole("folds", 2), default=5, help="of the cross-fitting (default: %(default)s)")
    fit.add_argument(
        "--outages",
        nargs="?",
        const="",
        metavar="TIER,TIER+TIER",
        help="also learn what is best while a tier is down, or several that are joined by + and fail together "
        "(default where nothing is named: each tier alone)",
    )
    _seed(fit)


def _compare(commands: Any, run: Run) -> None:
    compare = _command(
        commands,
        "compare",
        run,
        "methods side by side on queries that none of them learnt from",
        "metaverify compare log.parquet --methods default,thresholds --resume done -o comparison.json --plots plots",
        "For each fold a method learns and sets its dial on the other folds; then it routes that fold's\n"
        "queries at every budget. The headline is gain: points of quality above mixing fixed tiers at random,\n"
        "at the same budget. The last lines say who wins and whether that is clear.\n\n"
        "A package can bring methods of its own, as entry points of the group metaverify.methods: a learner,\n"
        "a class of learners, or a callable from a log (and budget=, if it takes one) to a policy.",
    )
    _log(compare)
    compare.add_argument(
        "--methods",
        help="by name, separated by commas, or all (default: the usual ones); a name that is not known lists them",
    )
    compare.add_argument(
        "--budgets",
        help="mean costs per query, separated by commas (default: ten from the cheapest tier to the dearest)",
    )
    compare.add_argument(
        "--readings", help="readings to use, by name (default: what each method usually does with all of them)"
    )
    compare.add_argument(
        "--folds", type=_whole("folds", 2), default=5, help="of the log's groups (default: %(default)s)"
    )
    compare.add_argument(
        "--repeats",
        type=_whole("repeats", 1),
        default=1,
        help="how often the log is divided into folds, each time differently (default: %(default)s)",
    )
    compare.add_argument(
        "--resume", metavar="DIR", help="keep what is done in this folder, and do not do again what it has"
    )
    compare.add_argument("-o", "--out", help="write the comparison as JSON")
    compare.add_argument("--plots", metavar="DIR", help="write figures to this folder, PNG and SVG")
    compare.add_argument(
        "--no-seconds",
        action="store_true",
        help="leave run times out of the JSON, so that two runs give the same bytes",
    )
    compare.add_argument("--jobs", type=_whole("jobs", 1), help="processes (default: one a core)")
    _seed(compare)


def _tuning(fit: Any) -> None:
    fit.add_argument(
        "--trials",
        type=_whole("trials", 1),
        help="of optuna, in each study: one a fold and one of all (default: 200; none where all chains are compared)",
    )
    fit.add_argument(
        "--cuts",
        type=_whole("cuts", 1, 2),
        help="of optuna: 1, escalate below a tier's cut; 2, between its two (default: 1)",
    )
    fit.add_argument(
        "--storage",
        metavar="FILE",
        help="of optuna: where finished trials are kept, and the same studies go on: SQLite where it ends in .db, "
        "otherwise a journal (default: in memory; all chains are compared instead where they are few)",
    )


def _pomdp(commands: Any, run: Run) -> None:
    pomdp = _command(
        commands,
        "pomdp",
        run,
        "write the cascade as a POMDP that solvers outside read",
        "metaverify pomdp log.parquet --tiers small,large --price 0.05 -o cascade.pomdpx",
    )
    _log(pomdp)
    pomdp.add_argument("-o", "--out", required=True, help="the file to write: .pomdp or .pomdpx")
    pomdp.add_argument(
        "--price", type=_number("price", 0.0), required=True, help="quality that a unit of cost must earn"
    )
    pomdp.add_argument("--label", help="the context whose cascade is written (default: all contexts pooled)")
    pomdp.add_argument(
        "--bins", type=_whole("bins", 1), default=4, help="the most bins of a reading (default: %(default)s)"
    )
    pomdp.add_argument("--abstain", type=_number("abstain", 0.0, 1.0), help="worth of handing a query over, in quality")
    pomdp.add_argument(
        "--discount",
        type=_number("discount", 0.0, 1.0),
        default=0.95,
        help="that the file states (default: %(default)s)",
    )


def _replay(commands: Any, run: Run) -> None:
    replay = _command(
        commands,
        "replay",
        run,
        "what a policy would have earned on a log",
        "metaverify replay policy.json log.parquet --budget 3",
    )
    replay.add_argument("policy", help="a policy file")
    _log(replay)
    _partial(replay)
    _in_use(replay)


def _certify(commands: Any, run: Run) -> None:
    certify = _command(
        commands,
        "certify",
        run,
        "set the dial where a budget certainly holds",
        "metaverify certify policy.json --traffic traffic.parquet --budget 2.2 --delta 0.05",
        "The points of the policy's dial are tested from the cheapest on, and the last one before the first\n"
        "failure is taken.  Rows must be others than those the policy was fitted on; what was correct need not\n"
        "be known.  Where nothing can be promised the file stays as it is and the exit code is 1.",
    )
    certify.add_argument("policy", help="a policy file")
    _log(certify, "?")
    certify.add_argument("--traffic", metavar="FILE", help="queries without labels, beside the log or instead of it")
    certify.add_argument(
        "--budget", type=_number("budget", 0.0), required=True, help="what the mean cost per query must not exceed"
    )
    _promise(certify, delta=0.1)
    certify.add_argument(
        "--level",
        choices=("approximate", "finite-sample"),
        default="finite-sample",
        help="approximate: right in large samples only, from 300 groups on (default: %(default)s)",
    )
    certify.add_argument(
        "--method",
        choices=("auto", "clopper-pearson", "hoeffding-bentkus", "betting"),
        default="auto",
        help="auto: Clopper-Pearson where a single graph costs one of two amounts, betting otherwise",
    )
    certify.add_argument(
        "--looks", action="store_true", help="by an e-process, so that a growing log may be looked at again and again"
    )
    certify.add_argument("-o", "--out", help="the file to write (default: the policy file)")
    _key(certify, "refuse a file that was not signed with this key, and sign what is written with it")


def _promise(parser: Any, *, delta: float | None) -> None:
    stated = "" if delta is None else " (default: %(default)g)"
    parser.add_argument(
        "--delta",
        type=_number("delta", 1e-9, 0.499),
        default=delta,
        help=f"the chance with which the promise may be broken{stated}",
    )
    parser.add_argument(
        "--dearest",
        metavar="M",
        type=_number("dearest", 0.0),
        help="the most that a query can cost, kept by the run time's cap (default: by the policy's prices)",
    )
    parser.add_argument(
        "--next",
        metavar="QUERIES",
        type=_whole("next", 1),
        default=0,
        help="promise the mean cost of the next so many queries, not their expectation",
    )


def _decide(commands: Any, run: Run) -> None:
    decide = _command(
        commands,
        "decide",
        run,
        "one decision",
        """metaverify decide policy.json '{"small": 0.42}' --key 17 --explain""",
    )
    decide.add_argument("policy", help="a policy file")
    decide.add_argument(
        "readings", help='what has been read: \'{"tier": confidence}\' or \'{"tier": {"reading": confidence}}\''
    )
    decide.add_argument(
        "--context",
        help="what is known of the query before any call: a label (several columns' with / between), or JSON: "
        '\'{"task": "qa", "tokens": 431}\'',
    )
    decide.add_argument("--key", help="the request's id, which picks the graph where the policy mixes two")
    decide.add_argument("--explain", action="store_true", help="also say why")
    _in_use(decide)


def _show(commands: Any, run: Run) -> None:
    show = _command(commands, "show", run, "draw a policy", "metaverify show policy.json --format mermaid")
    show.add_argument("policy", help="a policy file")
    show.add_argument("--format", choices=("text", "mermaid"), default="text", help="default: %(default)s")
    _in_use(show)


def _report(commands: Any, run: Run) -> None:
    report = _command(
        commands,
        "report",
        run,
        "a policy as one web page: the dial, its trees, decisions by hand",
        "metaverify report policy.json --comparison comparison.json -o report.html",
    )
    report.add_argument("policy", help="a policy file")
    report.add_argument("--comparison", metavar="FILE", help="what `metaverify compare` wrote, to be shown beside it")
    report.add_argument("-o", "--out", default="report.html", help="the page (default: %(default)s)")
    _key(report)


def _simulate(commands: Any, run: Run) -> None:
    simulate = _command(
        commands,
        "simulate",
        run,
        "draw a log from a synthetic world",
        "metaverify simulate shared_difficulty -n 5000 -o log.parquet",
    )
    simulate.add_argument(
        "world",
        choices=("shared_difficulty", "hopeless", "independent", "useless_verifier", "token_prices"),
        metavar="WORLD",
        help="%(choices)s",
    )
    simulate.add_argument(
        "-n", "--number", type=_whole("number", 1), default=1000, help="of queries (default: %(default)s)"
    )
    simulate.add_argument("-o", "--out", required=True, help="the log to write: .parquet, .csv, .jsonl (.gz)")
    simulate.add_argument(
        "--tiers", dest="tier_count", type=int, choices=(2, 3, 4, 5), default=3, help="how many (default: %(default)s)"
    )
    simulate.add_argument(
        "--levels", type=_whole("levels", 1), default=8, help="values of a confidence (default: %(default)s)"
    )
    simulate.add_argument("--missing", type=float, default=0.0, help="share of readings missing (default: %(default)s)")
    simulate.add_argument("--seen-by", metavar="FILE", help="leave what a router with this policy would see of it")
    simulate.add_argument(
        "--epsilon",
        type=_number("epsilon", 0.0, 1.0),
        default=0.0,
        help="with --seen-by: the share of queries for which it calls every tier (default: %(default)g)",
    )
    _seed(simulate)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"metaverify {version('metaverify')}")
        parser.exit()


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], what: str, example: str, more: str = ""
) -> Any:
    parser = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.\n{more}",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _log(parser: argparse.ArgumentParser, number: str | None = None) -> None:
    parser.add_argument("log", nargs=number, help="a log: .parquet, .csv or .jsonl, wide or long")
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


def _partial(parser: argparse.ArgumentParser) -> None:
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
        type=_number("epsilon", 0.0, 1.0),
        default=0.0,
        help="with --logged-by: the share of queries for which every tier was called (default: %(default)g)",
    )


def _edition(fit: Any) -> None:
    fit.add_argument(
        "--serial", type=_whole("serial", 1), default=0, help="which edition the file is; later are higher"
    )
    fit.add_argument(
        "--expires", type=_moment, metavar="TIME", help="when the file ends, with a zone: 2027-01-01T00:00Z"
    )
    _key(fit, "sign the file with the key in this one: its bytes, at least 16, or a PEM file's private ed25519 key")


def _key(parser: argparse.ArgumentParser, what: str = "refuse a file that was not signed with this key") -> None:
    parser.add_argument("--key-file", metavar="FILE", help=what)


def _in_use(parser: argparse.ArgumentParser) -> None:
    """How the policy stands: its dial, and what is down."""
    parser.add_argument("--without", help="tiers that are down, separated by commas (see fit --outages)")
    _key(parser)
    goal = parser.add_mutually_exclusive_group()
    goal.add_argument("--budget", type=float, help="turn the dial to this mean cost per query")
    goal.add_argument("--price", type=_number("price", 0.0), help="turn the dial to this quality per unit of cost")


def _seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=_whole("seed", 0), default=0, help="of everything drawn (default: %(default)s)")


def _whole(name: str, least: int, most: int | None = None) -> Callable[[str], int]:
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


def _moment(text: str) -> float:
    """The type of an option that is a time to come, in seconds since 1970."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no time; write it as 2027-01-01T00:00Z") from None
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text} has no zone; write it as 2027-01-01T00:00Z")
    if not moment.timestamp() > time.time():
        raise argparse.ArgumentTypeError(f"{text} is over")
    return moment.timestamp()


def _number(name: str, low: float, high: float = math.inf) -> Callable[[str], float]:
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
