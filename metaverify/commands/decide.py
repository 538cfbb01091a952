"""`metaverify decide`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from metaverify.arguments import parse_context, parse_readings, parse_text
from metaverify.inputs import in_use, read_policy
from metaverify.options import add_in_use, add_policy
from metaverify.output import print_json

if TYPE_CHECKING:
    from metaverify.policies.policy import Policy

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify decide policy.json '{\"small\": 0.42}' --key 17 --explain"


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_policy(parser)
    parser.add_argument(
        "readings", help='what has been read: \'{"tier": confidence}\' or \'{"tier": {"reading": confidence}}\''
    )
    parser.add_argument(
        "--context",
        help="what is known of the query before any call: a label (several columns' with / between), or JSON: "
        '\'{"task": "qa", "tokens": 431}\'',
    )
    parser.add_argument("--key", help="the request's id, which picks the graph where the policy mixes two")
    parser.add_argument("--explain", action="store_true", help="also say why")
    add_in_use(parser)


def run(options: argparse.Namespace) -> None:
    """One decision."""
    from metaverify.policies.explain import action_json, action_text, explain

    policy = in_use(read_policy(options), options)
    readings = parse_readings(options.readings)
    key = None if options.key is None else parse_text(options.key, "--key")
    known: dict[str, Any] = {"context": parse_context(options.context, policy), "key": key}
    if key is None and 0.0 < policy.point.share < 1.0:
        raise ValueError("this policy mixes two decision graphs to meet its budget: give --key, the request's id")
    if options.explain:
        explanation = explain(policy, readings, **known)
        if options.json:
            print_json(explanation.to_json())
        else:
            print(explanation)
        _warn_of_readings(policy, readings)
        return
    action = policy.decide(readings, **known)
    _warn_of_readings(policy, readings)
    if options.json:
        print_json(action_json(action))
    else:
        print(action_text(action))


def _warn_of_readings(policy: Policy, readings: Mapping[str, Any]) -> None:
    """Say which readings the policy does not know."""
    from metaverify.policies.explain import unknown_readings

    for unknown in unknown_readings(policy, readings):
        print(f"metaverify: {unknown}", file=sys.stderr)
