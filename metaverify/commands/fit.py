"""`metaverify fit`."""

from __future__ import annotations

import argparse
import pathlib
import time
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from metaverify.arguments import parse_names, parse_outages
from metaverify.inputs import read, signing_key
from metaverify.learning import add_learner, named_model, read_learner, say_interrupted
from metaverify.options import add_key, add_log, add_partial, add_promise, add_seed, check_partial, number, whole
from metaverify.output import check_out, print_json, print_warnings, progress

if TYPE_CHECKING:
    from metaverify.fitting.certify import Terms

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify fit log.parquet --budget 2.2 --context task -o policy.json"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_log(parser)
    add_partial(parser)
    parser.add_argument(
        "--within-support",
        action="store_true",
        help="of a partial log: learn although something was never bought in places, and do not buy it there",
    )
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument("--budget", type=float, help="mean cost per query, in the log's unit")
    goal.add_argument(
        "--price", type=number("price", 0.0), help="instead of a budget: quality that a unit of cost must earn"
    )
    goal.add_argument(
        "--quality-floor",
        metavar="Q",
        type=number("quality floor", 0.0, 1.0),
        help="instead of a budget: the cheapest policy that earns this quality; with --delta it certainly does",
    )
    parser.add_argument(
        "--certify",
        nargs="?",
        choices=("approximate", "finite-sample"),
        const="finite-sample",
        metavar="LEVEL",
        help="certify the budget: finite-sample, on three quarters of the log that are held out, or approximate, on "
        "all of it (default without a level: finite-sample)",
    )
    add_promise(parser, delta=None)
    parser.add_argument("-o", "--out", help="the policy file")
    _edition(parser)
    add_learner(parser)
    parser.add_argument(
        "--folds", type=whole("folds", 2), default=5, help="of the cross-fitting (default: %(default)s)"
    )
    parser.add_argument(
        "--outages",
        nargs="?",
        const="",
        metavar="TIER,TIER+TIER",
        help="also learn what is best while a tier is down, or several that are joined by + and fail together "
        "(default where nothing is named: each tier alone)",
    )
    add_seed(parser)


def run(options: argparse.Namespace) -> None:
    """Learn a policy from a log."""
    from metaverify.fitting.fit import fit
    from metaverify.policies.file import save_policy
    from metaverify.policies.storage import signature_path
    from metaverify.report import fit_table
    from metaverify.simulators.inspection import inspect_log

    check_out(options.out)
    check_partial(options)
    for name in ("serial", "expires", "key_file"):
        if getattr(options, name) and options.out is None:
            raise ValueError(f"--{name.replace('_', '-')} is of a file, and none is to be written: give -o policy.json")
    key = signing_key(options)
    if options.partial:
        _fit_partial(options, key)
        return
    log = read(options)
    with progress() as tell:
        learner = read_learner(options, tell)
        fitted = fit(
            log,
            budget=options.budget,
            price=options.price,
            quality_floor=options.quality_floor,
            certify=_terms(options),
            learner=learner,
            model=named_model(options),
            readings=parse_names(options.readings),
            abstain=options.abstain,
            bins=options.bins,
            pooling=options.pooling,
            folds=options.folds,
            seed=options.seed,
            outages=parse_outages(options.outages, log.tier_names),
            progress=tell,
        )
    say_interrupted(learner)
    warnings = inspect_log(log).warnings
    if options.out is not None:
        fitted = replace(fitted, policy=replace(fitted.policy, serial=options.serial, expires=options.expires))
        save_policy(fitted.policy, options.out, key=key)
    if options.json:
        print_json({**fitted.to_json(), "out": options.out, "warnings": [w.slug for w in warnings]})
        return
    print(fit_table(fitted))
    print_warnings(warnings)
    if options.out is None:
        print("no file was written; -o policy.json writes one")
    else:
        signed = "" if key is None else f"; its signature is in {signature_path(options.out)}"
        size = pathlib.Path(options.out).stat().st_size
        print(f"wrote {options.out}: {len(fitted.policy.nodes)} nodes, {size:,} bytes{signed}")


def _edition(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--serial", type=whole("serial", 1), default=0, help="which edition the file is; later are higher"
    )
    parser.add_argument(
        "--expires", type=_moment, metavar="TIME", help="when the file ends, with a zone: 2027-01-01T00:00Z"
    )
    add_key(
        parser, "sign the file with the key in this one: its bytes, at least 16, or a PEM file's private ed25519 key"
    )


def _fit_partial(options: argparse.Namespace, key: bytes | None) -> None:
    """`fit` on a partial log."""
    from metaverify.fitting.partial_fit import fit_partial
    from metaverify.policies.file import save_policy
    from metaverify.report import partial_fit_table

    usual: dict[str, Any] = {"method": "auto", "pooling": "average", "solver": "lattice"}
    none = ("readings", "abstain", "outages", "trials", "cuts", "storage", "quality_floor", "certify", "delta")
    for name, value in {**usual, **dict.fromkeys(none)}.items():
        if getattr(options, name) != value:
            raise ValueError(f"--{name.replace('_', '-')} does not go with --partial")
    partial = read(options)
    with progress() as tell:
        fitted = fit_partial(
            partial,
            budget=options.budget,
            price=options.price,
            model=named_model(options),
            within_support=options.within_support,
            bins=options.bins or 8,
            folds=options.folds,
            seed=options.seed,
            progress=tell,
        )
    if options.out is not None:
        fitted = replace(fitted, policy=replace(fitted.policy, serial=options.serial, expires=options.expires))
        save_policy(fitted.policy, options.out, key=key)
    if options.json:
        warned = [warning.slug for warning in partial.log.notes]
        print_json({**fitted.to_json(), "out": options.out, "warnings": warned})
        return
    print(partial_fit_table(fitted))
    print_warnings(partial.log.notes)
    print("no file was written; -o policy.json writes one" if options.out is None else f"wrote {options.out}")


def _terms(options: argparse.Namespace) -> Terms | None:
    """How what is fitted is to be certified; None where it is not."""
    from metaverify.fitting.certify import Terms

    given = [name for name in ("dearest", "next") if getattr(options, name)]
    if options.quality_floor is not None:
        if given or options.certify is not None:
            raise ValueError(f"--{(given or ['certify'])[0]} goes with --budget; a floor is certified with --delta")
        return None if options.delta is None else Terms(delta=options.delta)
    if options.certify is None:
        if given or options.delta is not None:
            raise ValueError(f"--{(given or ['delta'])[0]} goes with --certify")
        return None
    delta = Terms().delta if options.delta is None else options.delta
    return Terms(delta=delta, level=options.certify, dearest=options.dearest, next=options.next)


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
