"""`metaverify serve-verdict`."""

from __future__ import annotations

import argparse
import contextlib
import time

from metaverify.inputs import key_of
from metaverify.options import add_key, add_policy, number, whole
from metaverify.output import print_json

__all__ = ["EXAMPLE", "add", "run"]

EXAMPLE = "metaverify serve-verdict policy.json --budget 3 --verifier http://127.0.0.1:8800"
DETAILS = (
    "POST /decide takes readings and says what to do next.  /tiers/TIER/verify is for vLLM semantic-router's\n"
    "verifier_server_url, /tiers/TIER/webhook for Portkey's webhook guardrails (docs/gateways.md).  A new policy\n"
    "file is taken up while it runs; /healthz and /metrics say how it is."
)


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = f"{parser.description}\n{DETAILS}"
    add_policy(parser)
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: %(default)s)")
    parser.add_argument(
        "--port", type=whole("port", 0, 65535), default=8900, help="where to listen; 0 is any (default: %(default)s)"
    )
    parser.add_argument(
        "--allow-remote", action="store_true", help="let other machines ask: anybody who reaches the port"
    )
    parser.add_argument(
        "--verifier", metavar="URL", help="what is asked for the confidence in an answer (POST URL/verify)"
    )
    parser.add_argument("--budget", type=float, help="turn the dial to this mean cost per query")
    parser.add_argument(
        "--timeout",
        type=number("timeout", 0.1, 3600.0),
        default=30.0,
        help="seconds for the verifier (default: %(default)g)",
    )
    add_key(parser)


def run(options: argparse.Namespace) -> None:
    """Serve verdicts until interrupted."""
    from metaverify.policies.file import load_policy
    from metaverify.policies.policy import Policy
    from metaverify.policies.store import PolicyStore
    from metaverify.verdict import VerdictServer, http_verifier

    key = key_of(options)

    def load(path: object) -> Policy:
        policy = load_policy(options.policy, key=key, now=time.time())
        return policy if options.budget is None else policy.at(budget=options.budget)

    store = PolicyStore(options.policy, load=load)
    verifier = None if options.verifier is None else http_verifier(options.verifier, options.timeout)
    server = VerdictServer(store, options.host, options.port, verifier=verifier, allow_remote=options.allow_remote)
    with server:
        port = server.server_port
        health = store.health()
        if options.json:
            print_json({"host": options.host, "port": port, "policy": health.id, "serial": health.serial})
        else:
            print(f"serving {health.id} on http://{options.host}:{port}; end it with Ctrl-C", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
