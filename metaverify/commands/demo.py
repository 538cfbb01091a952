"""`metaverify demo`."""

from __future__ import annotations

import argparse
import json
import pathlib

from metaverify.options import add_seed
from metaverify.output import check_out, print_json, progress

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify demo"
METHODS = ("default", "chain", "thresholds", "automix-threshold", "random")
BUDGETS = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0, 20.0, 50.0)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--budget", type=float, default=2.0, help="mean cost per query (default: %(default)g)")
    parser.add_argument("-o", "--out", default="digits-policy.json", help="the policy file (default: %(default)s)")
    add_seed(parser)


def run(options: argparse.Namespace) -> None:
    """The whole road on a log that ships with the package."""
    from metaverify.comparison import verdict
    from metaverify.fitting.compare import compare
    from metaverify.fitting.fit import fit
    from metaverify.page import report_page
    from metaverify.policies.drawing import draw_text
    from metaverify.policies.explain import explain
    from metaverify.policies.file import load_policy, save_policy
    from metaverify.policies.storage import write_atomically
    from metaverify.simulators.digits import load_digits_log
    from metaverify.simulators.inspection import inspect_log, render

    check_out(options.out)
    log = load_digits_log()
    if not options.json:
        print("Inspects a log of four classifiers of handwritten digits, fits a policy to it, compares it with other")
        print("ways, and explains a decision. A price is thousands of multiply-adds per prediction.\n")
        print(render(inspect_log(log)))
    with progress() as tell:
        fitted = fit(log, budget=options.budget, seed=options.seed, progress=tell)
    with progress() as tell:
        found = compare(log, METHODS, budgets=BUDGETS, folds=3, seed=options.seed, progress=tell)
    compared = found.to_json()
    save_policy(fitted.policy, options.out)
    page = pathlib.Path(options.out).with_name("report.html")
    write_atomically(page, report_page(fitted.policy, compared).encode())
    if options.json:
        print_json({**fitted.to_json(), "out": str(options.out), "page": str(page)})
        return
    from metaverify.report import fit_table

    print(fit_table(fitted))
    policy = load_policy(options.out)
    print(draw_text(policy))
    unsure = {policy.tiers[1].name: 0.5}
    print(f"decide({unsure}, key='request 1'):")
    print(explain(policy, unsure, key="request 1"))
    print("\n" + "\n".join(verdict(compared)))
    print(f"\nwrote {page}, to be opened in a browser: the dial, the tree, decisions by hand, methods side by side")
    print(f"wrote {options.out}; try\n  metaverify decide {options.out} '{json.dumps(unsure)}' --key 7 --explain")
