"""`metaverify pomdp`."""

from __future__ import annotations

import argparse
import pathlib

from metaverify.inputs import read
from metaverify.options import add_log, number, whole
from metaverify.output import check_out, print_json, working

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify pomdp log.parquet --tiers small,large --price 0.05 -o cascade.pomdpx"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_log(parser)
    parser.add_argument("-o", "--out", required=True, help="the file to write: .pomdp or .pomdpx")
    parser.add_argument(
        "--price", type=number("price", 0.0), required=True, help="quality that a unit of cost must earn"
    )
    parser.add_argument("--label", help="the context whose cascade is written (default: all contexts pooled)")
    parser.add_argument(
        "--bins", type=whole("bins", 1), default=4, help="the most bins of a reading (default: %(default)s)"
    )
    parser.add_argument("--abstain", type=number("abstain", 0.0, 1.0), help="worth of handing a query over, in quality")
    parser.add_argument(
        "--discount",
        type=number("discount", 0.0, 1.0),
        default=0.95,
        help="that the file states (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> None:
    """Write the cascade as a POMDP that solvers outside read."""
    from metaverify.fitting.learner import TableLearner
    from metaverify.fitting.observation import observation_model
    from metaverify.fitting.pomdp import cascade_pomdp
    from metaverify.fitting.pomdp_file import write_pomdp

    check_out(options.out)
    suffix = pathlib.Path(options.out).suffix
    if suffix not in (".pomdp", ".pomdpx"):
        raise ValueError(f"{options.out} ends in {suffix or 'nothing'}; name a file that ends in .pomdp or .pomdpx")
    log = read(options)
    with working("learning"):
        study = TableLearner(bins=options.bins, first=True).study(log)
    contexts = study.table.contexts
    if options.label is not None and options.label not in contexts:
        raise ValueError(f"--label {options.label!r} is no context; the log has {', '.join(contexts) or 'none'}")
    row = 0 if options.label is None else 1 + contexts.index(options.label)
    model = cascade_pomdp(observation_model(study.table, row), options.price, abstain=options.abstain)
    write_pomdp(model, options.out, "pomdp" if suffix == ".pomdp" else "pomdpx", discount=options.discount)
    if options.json:
        print_json({"out": options.out, "hidden_states": len(model.prior), "actions": len(model.actions)})
        return
    print(f"wrote {options.out}: {len(model.prior):,} hidden states, {len(model.actions)} actions")
