"""`metaverify certify`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from metaverify.arguments import parse_costs
from metaverify.inputs import read_for, read_policy, signing_key
from metaverify.options import add_key, add_log, add_policy, add_promise, number
from metaverify.output import check_out, print_json, print_warnings, working

if TYPE_CHECKING:
    from metaverify.policies.policy import Policy

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify certify policy.json --traffic traffic.parquet --budget 2.2 --delta 0.05"
DETAILS = (
    "The points of the policy's dial are tested from the cheapest on, and the last one before the first\n"
    "failure is taken.  Rows must be others than those the policy was fitted on; what was correct need not\n"
    "be known.  Where nothing can be promised the file stays as it is and the exit code is 1."
)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = f"{parser.description}\n{DETAILS}"
    add_policy(parser)
    add_log(parser, "?")
    parser.add_argument("--traffic", metavar="FILE", help="queries without labels, beside the log or instead of it")
    parser.add_argument(
        "--budget", type=number("budget", 0.0), required=True, help="what the mean cost per query must not exceed"
    )
    add_promise(parser, delta=0.1)
    parser.add_argument(
        "--level",
        choices=("approximate", "finite-sample"),
        default="finite-sample",
        help="approximate: right in large samples only, from 300 groups on (default: %(default)s)",
    )
    parser.add_argument(
        "--method",
        choices=("auto", "clopper-pearson", "hoeffding-bentkus", "betting"),
        default="auto",
        help="auto: Clopper-Pearson where a single graph costs one of two amounts, betting otherwise",
    )
    parser.add_argument(
        "--looks", action="store_true", help="by an e-process, so that a growing log may be looked at again and again"
    )
    parser.add_argument("-o", "--out", help="the file to write (default: the policy file)")
    parser.set_defaults(in_place="policy")
    add_key(parser, "refuse a file that was not signed with this key, and sign what is written with it")


def run(options: argparse.Namespace) -> None:
    """Set the dial where a budget certainly holds."""
    from metaverify.fitting.certify import Terms, certify
    from metaverify.policies.certificate import certificate_text
    from metaverify.policies.file import save_policy
    from metaverify.simulators.inspection import repeat_warnings
    from metaverify.simulators.log import LogWarning
    from metaverify.simulators.traffic import read_traffic

    out = options.out or options.policy
    check_out(out)
    key = signing_key(options)
    if options.log is None and options.traffic is None:
        raise ValueError("give a log that the policy was not fitted on, or --traffic")
    policy = read_policy(options)
    _check_costs(policy, parse_costs(options.cost))
    logs = [] if options.log is None else [read_for(policy, options)]
    if options.traffic is not None:
        known = {"costs": parse_costs(options.cost), "scale": options.scale, "group": options.group}
        logs.append(read_traffic(options.traffic, policy, **known, weight=options.weight))
    terms = Terms(options.delta, options.level, options.method, options.dearest, options.next, options.looks)
    with working("certifying"):
        certified = certify(policy, *logs, budget=options.budget, terms=terms)
    again = LogWarning(
        "certified-again",
        "the policy had a certificate: who tests the same rows again, or a log that has grown, until it holds breaks "
        "promises more often than is said; look again and again by --looks, or on rows that are all new",
    )
    warnings = [warning for log in logs for warning in repeat_warnings(log)]
    if policy.certificate is not None and not options.looks:
        warnings.append(again)
    save_policy(certified, out, key=key)
    if options.json:
        told = {
            "out": out,
            "certificate": asdict(certified.certificate) if certified.certificate else None,
            "operating_point": asdict(certified.point),
            "expected": {"cost": certified.expected_cost, "quality": certified.expected_quality},
            "warnings": [warning.slug for warning in warnings],
        }
        print_json(told)
        return
    print(certificate_text(certified.certificate))
    before, after = policy.expected_cost, certified.expected_cost
    print(
        f"expected cost {after:.5g} (before: {before:.5g}), quality {certified.expected_quality:.4f}, at its new point"
    )
    print_warnings(warnings)
    print(f"wrote {out}")


def _check_costs(policy: Policy, costs: Mapping[str, float] | None) -> None:
    """Make sure that a price that is typed is the one that the policy was fitted at."""
    from metaverify.simulators.traffic import varying

    for tier in policy.tiers:
        told = (costs or {}).get(tier.name, tier.price)
        varies = (tier.name, None) in (varying(policy) or {})
        if tier.name in (costs or {}) and (varies or not math.isclose(told, tier.price, rel_tol=1e-6)):
            price = "varied in the log that the policy was fitted on" if varies else f"is {tier.price:g} in the policy"
            raise ValueError(
                f"--cost {tier.name}={told:g}, but that price {price}: what is promised is what queries really cost; "
                "give it as a column of the rows, or fit at the new price"
            )
