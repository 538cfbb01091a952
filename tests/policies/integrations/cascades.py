"""A cascade of three tiers for the tests: its policy, its settings, and what it does, worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from metaverify.policies.actions import Accept
from metaverify.policies.file import save_policy
from metaverify.policies.graph import Ask, Graph, Read, Stop
from metaverify.policies.policy import OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Reading, Tier

LOW, MIDDLE, HIGH = 0, 1, 2
COST = {"small": 1.0, "medium": 10.0, "large": 100.0, "judge": 2.0}
"""Thousandths of a dollar."""

CUT, GRADE = 0.8, 0.5

SETTINGS = """
[support]
policy = "policy.json"
dollars = 0.001
decisions = "decisions.jsonl"
every = 0.0
{more}

[support.tiers.small]
timeout = {timeout[small]}
litellm_params = {{ model = "mock/small", input_cost_per_token = 0.0, output_cost_per_token = 0.0001 }}
readings.conf = {{ verifier = "answer_probability" }}

[support.tiers.medium]
timeout = {timeout[medium]}
litellm_params = {{ model = "mock/medium", input_cost_per_token = 0.0, output_cost_per_token = 0.001 }}

[support.tiers.medium.readings.judge]
verifier = "judge"
timeout = {timeout[judge]}
litellm_params = {{ model = "mock/judge", input_cost_per_token = 0.0, output_cost_per_token = 0.0002 }}

[support.tiers.large]
timeout = {timeout[large]}
litellm_params = {{ model = "mock/large", input_cost_per_token = 0.0, output_cost_per_token = 0.01 }}
"""


def cascade(vertex: int = HIGH, serial: int = 0, cut: float = CUT) -> Policy:
    """Small; where that is doubted medium, and a judge of it; where that is doubted too, large.  Cheaper vertices stop
    earlier."""
    nodes: Graph = (
        Ask("small", 9),
        Ask("small", 3),
        Ask("small", 4),
        Read("small", "conf", (cut,), (5, 9), 5),
        Read("small", "conf", (cut,), (6, 9), 6),
        Ask("medium", 10),
        Ask("medium", 7),
        Read("medium", "judge", (GRADE,), (8, 10), 8),
        Ask("large", 11),
        Stop(Accept("small")),
        Stop(Accept("medium")),
        Stop(Accept("large")),
    )
    tiers = (
        Tier("small", 1.0, (Reading("conf", 0.0, (0.8,), (50, 50, 0)),)),
        Tier("medium", 10.0, (Reading("judge", 2.0, (0.5,), (50, 50, 0)),)),
        Tier("large", 100.0),
    )
    vertices = tuple(Vertex(0.0, cost, quality, at) for at, (cost, quality) in enumerate([(1, 0.6), (6, 0.8), (40, 1)]))
    return Policy(tiers, nodes, vertices, OperatingPoint(vertex, vertex, 0.0), serial=serial)


def write_settings(
    folder: Path, more: str = "", policy: Policy | None = None, timeouts: Mapping[str, float] = MappingProxyType({})
) -> Path:
    """The settings, with the policy beside them; what has no timeout here has a long one."""
    save_policy(policy or cascade(), folder / "policy.json")
    path = folder / "cascades.toml"
    path.write_text(SETTINGS.format(more=more, timeout=dict.fromkeys(COST, 30.0) | {**timeouts}))
    return path


def outcome(world: dict[str, Any], vertex: int = HIGH, cut: float = CUT) -> tuple[str, float]:
    """The tier that answers and what all cost, as worked out by hand; nothing fails, and nothing is missing."""
    spent = COST["small"]
    if vertex == LOW or world["small"]["p"][0] >= cut:
        return "small", spent
    spent += COST["medium"]
    if vertex == MIDDLE:
        return "medium", spent
    spent += COST["judge"]
    if world["judge"]["grade"] / 100 >= GRADE:
        return "medium", spent
    return "large", spent + COST["large"]


EASY = {"small": {"p": [0.9, 0.9]}, "judge": {"grade": 90}}
MIDDLING = {"small": {"p": [0.3, 0.3]}, "judge": {"grade": 90}}
HARD = {
    "small": {"p": [0.3, 0.3]},
    "judge": {"grade": 10},
    "large": {"text": "large says it in nine words at the least"},
}
