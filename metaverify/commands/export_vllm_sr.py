"""`metaverify export-vllm-sr`."""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import TYPE_CHECKING

from metaverify.inputs import in_use, read_for, read_policy
from metaverify.options import add_in_use, add_log, add_policy
from metaverify.output import check_out, print_json

if TYPE_CHECKING:
    from metaverify.fitting.one_threshold import OneThreshold, Simplified
    from metaverify.policies.policy import Policy

__all__ = ["EXAMPLE", "METHODS", "add", "run"]

EXAMPLE = "metaverify export-vllm-sr policy.json log.parquet --verifier-url http://127.0.0.1:8800 -o confidence.yaml"
DETAILS = (
    "vLLM semantic-router's `confidence` looper calls models in one order and returns the first answer whose\n"
    "confidence is at least one threshold.  A policy that is more than that is simplified on the log, and what\n"
    "that loses is said; its readings must be what the method there yields (docs/gateways.md)."
)
METHODS = ("automix_entailment", "self_verify", "avg_logprob", "margin", "hybrid")


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = f"{parser.description}\n{DETAILS}"
    add_policy(parser)
    add_log(parser, "?")
    add_in_use(parser)
    parser.add_argument("-o", "--out", help="the YAML to write (default: print it)")
    parser.add_argument(
        "--method", choices=METHODS, default=METHODS[0], help="confidence_method (default: %(default)s)"
    )
    parser.add_argument(
        "--verifier-url",
        metavar="URL",
        help="verifier_server_url, which automix_entailment needs: POST URL/verify tells the confidence that the"
        " policy reads",
    )
    parser.add_argument("--reading", help="simplify to a chain by this reading (default: whichever loses least)")


def run(options: argparse.Namespace) -> None:
    """Write the looper's configuration, and say what is lost."""
    from metaverify.fitting.one_threshold import as_one_threshold, misfits, simplify
    from metaverify.policies.file import policy_id

    check_out(options.out)
    filed = read_policy(options)
    policy = in_use(filed, options)
    chain, simplified = as_one_threshold(policy), None
    if (chain is None or len(chain.tiers) > 1) and options.method == METHODS[0] and options.verifier_url is None:
        raise ValueError(
            f"{METHODS[0]} asks a server for every confidence: give --verifier-url URL, where POST URL/verify tells"
            " the confidence that the policy reads (serve-verdict tells verdicts, elsewhere), or another --method"
        )
    if options.method != METHODS[0] and options.verifier_url is not None:
        raise ValueError(f"--method {options.method} asks no verifier; leave --verifier-url out")
    if chain is None:
        if options.log is None:
            why = "; ".join(misfits(policy))
            raise ValueError(f"{options.policy} is more than one threshold: {why}; name a log to simplify it on")
        simplified = simplify(policy, read_for(filed, options), reading=options.reading)
        chain = simplified.chain
    said = _said(policy, chain, simplified)
    text = looper_yaml(chain, options.method, options.verifier_url, [f"policy {policy_id(policy)}", *said])
    if options.out is not None:
        pathlib.Path(options.out).write_text(text, "utf-8")
    if options.json:
        told = None if simplified is None else simplified.to_json()
        exported = {"tiers": chain.tiers, "reading": chain.reading, "threshold": chain.threshold}
        print_json({"out": options.out, "chain": exported, "simplified": told, "yaml": text})
        return
    if options.out is None:
        print(text, end="")
        return
    print("\n".join(said))
    print(f"wrote {options.out}")


def _said(policy: Policy, chain: OneThreshold, found: Simplified | None) -> list[str]:
    """What is exported, and what that loses, in sentences."""
    if found is None:
        return ["the policy is one threshold: nothing is lost"]
    by = f" while {chain.reading} is below {chain.threshold:g}" if len(chain.tiers) > 1 else ""
    loss, saving = found.loss, found.saving
    change = -saving.mean / found.cost.mean if found.cost.mean else 0.0
    return [
        f"simplified, since {'; '.join(found.why)}",
        f"instead: {' then '.join(chain.tiers)}{by}",
        f"on {found.n:,} queries that loses {100 * loss.mean:+.2f} points of quality "
        f"(90 % interval {100 * loss.low:+.2f} to {100 * loss.high:+.2f}) and changes the cost by {change:+.1%}",
    ]


def looper_yaml(chain: OneThreshold, method: str, url: str | None, comments: list[str]) -> str:
    """The part of a decision that says which models are asked and when to stop; texts are quoted as in JSON."""
    lines = [f"# metaverify: {' '.join(comment.split())}" for comment in comments]
    lines += ["modelRefs:", *(f"  - model: {_quoted(tier)}" for tier in chain.tiers)]
    if len(chain.tiers) > 1:
        lines += [
            "algorithm:",
            '  type: "confidence"',
            "  confidence:",
            f"    confidence_method: {_quoted(method)}",
            f"    threshold: {chain.threshold!r}",
            '    escalation_order: "declared"',
            '    on_error: "skip"',
        ]
        lines += [] if url is None else [f"    verifier_server_url: {_quoted(url)}"]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A text in double quotes, which YAML reads as JSON does."""
    return json.dumps(text)
