"""A drawing can be followed by hand to the same decisions, and no name in it can break it."""

from __future__ import annotations

import html
import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from metaverify.fitting.fit import fit
from metaverify.fitting.learner import TableLearner
from metaverify.policies.actions import Abstain, Accept, Action, Call, Verify
from metaverify.policies.drawing import draw_mermaid, draw_text
from metaverify.policies.file import load_policy
from metaverify.policies.graph import Ask, Read, Stop, successors
from metaverify.policies.policy import Belief, OperatingPoint, Policy, Vertex
from metaverify.policies.tiers import Reading, Tier
from metaverify.simulators.worlds import shared_difficulty

from .strategies import Bought, Grove, examples, policies

SMALL = Tier("small", 1.0, (Reading("conf", 0.0, (), (0, 0)), Reading("judge", 0.5, (), (0, 0))))
LARGE = Tier("large", 12.3456)
BELIEFS = {
    1: (
        Belief(0.2, (0.1, 0.6), (0.12, 0.15)),
        Belief(0.5, (0.5, 0.7), (0.53, 0.25)),
        Belief(0.25, (0.9, 0.95), (None, 0.5)),
        Belief(0.05, (0.4, 0.8), (None, 0.41)),
    ),
    2: (
        Belief(0.22, (0.2, 0.6), (None, 0.3)),
        Belief(0.33, (0.7, 0.75), (None, 0.2)),
        Belief(0.0, (0.5, 0.7), (None, 0.2)),
    ),
}
POLICY = Policy(
    tiers=(SMALL, LARGE),
    nodes=(
        Ask("small", 1),
        Read("small", "conf", (0.3, 0.7), (4, 2, 6), 2),
        Read("small", "judge", (0.5,), (4, 6), 3),
        Stop(Abstain()),
        Ask("large", 5),
        Stop(Accept("large")),
        Stop(Accept("small")),
    ),
    vertices=(Vertex(0.05, 4.0, 0.8, 0, {}, BELIEFS),),
    point=OperatingPoint(0, 0, 0.0, 4.0),
    abstain=0.4,
)


def believing(policy: Policy, beliefs: Mapping[int, tuple[Belief, ...]]) -> Policy:
    """The policy with these beliefs at each of its vertices."""
    return replace(policy, vertices=tuple(replace(vertex, beliefs=beliefs) for vertex in policy.vertices))


TEXT = """\
tiers: small (1), large (12.35)
expected: quality 0.8000 at cost 4 per query
certificate: none

every request
call small, read conf of small
├─ conf < 0.3 (20.0%): call large, accept large, quality 0.60
├─ 0.3 <= conf < 0.7 or missing (55.0%): read judge of small
│  ├─ judge < 0.5 (22.0%): call large, accept large, quality 0.60
│  ├─ judge >= 0.5 (33.0%): accept small, quality 0.70
│  └─ missing (0.0%): hand over
└─ conf >= 0.7 (25.0%): accept small, quality 0.90
"""
MERMAID = """\
flowchart LR
  start0(["every request"])
  start0 --> start0_1["call small<br/>read conf of small"]
  start0_1 -->|"conf &lt; 0.3 (20.0%)"| start0_2(["call large<br/>accept large, quality 0.60"]):::tier1
  start0_1 -->|"0.3 &lt;= conf &lt; 0.7 or missing (55.0%)"| start0_3["read judge of small"]
  start0_3 -->|"judge &lt; 0.5 (22.0%)"| start0_4(["call large<br/>accept large, quality 0.60"]):::tier1
  start0_3 -->|"judge &gt;= 0.5 (33.0%)"| start0_5(["accept small, quality 0.70"]):::tier0
  start0_1 -->|"conf &gt;= 0.7 (25.0%)"| start0_6(["accept small, quality 0.90"]):::tier0
  classDef tier0 fill:#dbeafe,stroke:#555,color:#111
  classDef tier1 fill:#dcfce7,stroke:#555,color:#111
"""


def test_a_small_policy_is_drawn_so() -> None:
    assert draw_text(POLICY) == TEXT


def test_a_small_policy_is_a_flowchart_so() -> None:
    assert draw_mermaid(POLICY) == MERMAID


@pytest.mark.parametrize("draw", [draw_text, draw_mermaid])
def test_what_turns_the_writing_around_is_drawn_as_a_space(draw: Callable[[Policy], str]) -> None:
    turned = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    label = "".join(f"a{letter}b" for letter in turned) + "\u05d0\u200db\x1b"
    vertices = tuple(replace(vertex, context_roots={label: vertex.root}) for vertex in POLICY.vertices)
    drawn = draw(replace(POLICY, vertices=vertices))
    assert not {*turned, "\x1b"} & {*drawn}
    assert "a b" * len(turned) + "\u05d0\u200db " in drawn


def test_without_beliefs_there_are_no_shares_and_no_qualities() -> None:
    bare = re.sub(r" \(\d+\.\d%\)|, quality 0\.\d\d(?=\n)", "", TEXT)
    assert draw_text(believing(POLICY, {})) == bare


def test_a_mixture_and_its_contexts_stand_as_trees_of_their_own() -> None:
    mixed = replace(
        POLICY,
        nodes=(*POLICY.nodes, Ask("large", 8), Stop(Accept("large"))),
        vertices=(
            Vertex(0.05, 4.0, 0.8, 0, {"x": 0, "y": 7, "z": 0}),
            Vertex(0.01, 9.0, 0.9, 7, {"x": 7, "y": 7, "z": 7}),
        ),
        point=OperatingPoint(0, 1, 0.125, 4.625),
    )
    assert [line for line in draw_text(mixed).splitlines() if "of requests" in line] == [
        "87.5% of requests, context x, z, any other",
        "87.5% of requests, context y",
        "12.5% of requests, context x, y, z, any other",
    ]
    assert "expected: quality 0.8125 at cost 4.625 per query\n" in draw_text(mixed)
    assert re.findall(r'start\d\(\["(.*?)"\]\)', draw_mermaid(mixed)) == [
        "87.5% of requests, context x, z, any other",
        "87.5% of requests, context y",
    ]


def test_a_subtree_with_two_parents_is_drawn_once_and_named_then() -> None:
    nodes = (
        Ask("small", 1),
        Read("small", "conf", (0.3, 0.7), (2, 3, 4), 3),
        Ask("large", 3),
        Read("small", "judge", (0.5,), (4, 5), 5),
        Stop(Abstain()),
        Stop(Accept("small")),
    )
    shared = replace(believing(POLICY, {}), nodes=nodes)
    assert draw_text(shared).partition("every request\n")[2] == (
        "call small, read conf of small\n"
        "├─ conf < 0.3: call large, read judge of small  [1]\n"
        "│  ├─ judge < 0.5: hand over\n"
        "│  └─ judge >= 0.5 or missing: accept small\n"
        "├─ 0.3 <= conf < 0.7 or missing: read judge of small: as at [1]\n"
        "└─ conf >= 0.7: hand over\n"
    )


@pytest.mark.parametrize(
    ("nodes", "steps"),
    [
        ((Stop(Abstain()),), ["hand over"]),
        ((Ask("small", 1), Stop(Accept("small"))), ["call small", "accept small"]),
    ],
    ids=["all handed over", "nothing read"],
)
def test_a_policy_that_reads_nothing_is_one_line(nodes: tuple[Ask | Stop, ...], steps: list[str]) -> None:
    plain = replace(believing(POLICY, {}), nodes=nodes)
    assert draw_text(plain).splitlines()[4:] == ["every request", ", ".join(steps)]
    assert re.findall(r'"(.*?)"', draw_mermaid(plain)) == ["every request", "<br/>".join(steps)]


# --------------------------------------------------------------------------------------- followed by hand


@dataclass
class Line:
    """One line of a tree: how it is reached, what is done there, and what stands below."""

    label: str
    share: float | None  # in per cent
    steps: list[str]
    mark: str | None
    below: list[Line] = field(default_factory=list)


LINE = re.compile(
    r"(?P<lead>(?:[│ ]  )*)(?:[├└]─ (?P<label>.*?)(?: \((?P<share>[\d.]+)%\))?: )?"
    r"(?P<steps>[^\[\]:]*?)(?::? (?:as at| ) ?\[(?P<mark>\d+)\])?"
)


def trees(text: str) -> Iterator[tuple[str, Line, dict[str, Line]]]:
    """Title, tree and numbered subtrees of every tree in a drawing."""
    for part in text.split("\n\n")[1:]:
        title, *lines = part.splitlines()
        stack: list[Line] = []
        numbered: dict[str, Line] = {}
        for text_line in lines:
            match = LINE.fullmatch(text_line)
            assert match, text_line
            depth = 0 if match["label"] is None else len(match["lead"]) // 3 + 1
            share = None if match["share"] is None else float(match["share"])
            line = Line(match["label"] or "", share, match["steps"].split(", "), match["mark"])
            if depth:
                stack[depth - 1].below.append(line)
            stack[depth:] = [line]
            if match["mark"] and "as at" not in text_line:
                numbered[match["mark"]] = line
        yield title, stack[0], numbered


def holds(label: str, reading: str, confidence: float | None) -> bool:
    """Whether a confidence is in one of the intervals of a label."""
    for interval in label.split(" or "):
        if interval == "missing":
            if confidence is None:
                return True
            continue
        low, high = -1.0, 2.0
        if interval != f"any {reading}":
            ends = re.fullmatch(rf"(?:(\S+) <= )?{reading}(?: < (\S+))?(?: >= (\S+))?", interval)
            assert ends, interval
            low, high = float(ends[1] or ends[3] or -1), float(ends[2] or 2)
        if confidence is not None and low <= confidence < high:
            return True
    return False


def follow(line: Line, numbered: Mapping[str, Line], readings: Mapping[str, Mapping[str, float | None]]) -> Action:
    """What somebody does who has the drawing and these readings."""
    while True:
        for step in line.steps:
            verb, *rest = step.split()
            if verb == "call" and rest[0] not in readings:
                return Call(rest[0])
            if verb == "accept":
                return Accept(rest[0])
            if verb == "hand":
                return Abstain()
        reading, tier = line.steps[-1].split()[1], line.steps[-1].split()[3]
        if reading not in readings[tier]:
            return Verify(tier, reading)
        whole = line if line.below else numbered[line.mark or ""]
        fitting = [child for child in whole.below if holds(child.label, reading, readings[tier][reading])]
        assert len(fitting) == 1, (line, readings)
        line = fitting[0]


CASCADE = (
    Tier("a", 1.0, (Reading("conf", 0.0, (), (0, 0)), Reading("votes", 0.5, (), (0, 0)))),
    Tier("b", 2.0, (Reading("conf", 0.0, (), (0, 0)),)),
    Tier("c", 3.0),
)


def grown(rng: random.Random, grove: Grove, have: Bought) -> int:
    """The root of a random graph that is legal after ``have`` was bought; subtrees are often shared."""
    if (shared := grove.legal(have)) and rng.random() < 0.3:
        return rng.choice(shared)
    calls = [(tier.name, "") for tier in CASCADE if (tier.name, "") not in have]
    reads = [
        (t.name, r.name) for t in CASCADE for r in t.readings if (t.name, "") in have and (t.name, r.name) not in have
    ]
    if not calls + reads or (have and rng.random() < 0.3):
        return grove.add(Stop(rng.choice([Abstain(), *(Accept(tier) for tier, reading in have if not reading)])))
    tier, reading = rng.choice(calls + reads)
    bought = have | {(tier, reading)}
    if not reading:
        return grove.add(Ask(tier, grown(rng, grove, bought)))
    cuts = tuple(sorted(rng.sample([0.0, 0.25, 0.5, 0.75, 1.0], rng.randint(0, 3))))
    then = tuple(grown(rng, grove, bought) for _ in range(len(cuts) + 1))
    return grove.add(Read(tier, reading, cuts, then, grown(rng, grove, bought)))


def random_policy(rng: random.Random) -> Policy:
    """A mixture of two graphs in each of two contexts, with beliefs."""
    grove = Grove()
    roots = [grown(rng, grove, frozenset()) for _ in range(6)]
    nodes, placed = grove.table(roots)
    vertices = tuple(
        Vertex(0.1, cost, 0.5, placed[at], {"x": placed[at + 1], "y": placed[at + 2]})
        for cost, at in ((1.0, 0), (2.0, 3))
    )

    def belief() -> Belief:
        return Belief(rng.random(), tuple(rng.random() for _ in CASCADE), tuple(rng.random() for _ in CASCADE))

    beliefs = {at: tuple(belief() for _ in successors(n)) for at, n in enumerate(nodes) if isinstance(n, Read)}
    return believing(Policy(CASCADE, nodes, vertices, OperatingPoint(0, 1, 0.25), abstain=0.5), beliefs)


def random_readings(rng: random.Random) -> dict[str, dict[str, float | None]]:
    values = [None, 0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0]
    return {
        tier.name: {r.name: rng.choice(values) for r in tier.readings if rng.random() < 0.8}
        for tier in CASCADE
        if rng.random() < 0.8
    }


def test_who_follows_the_drawing_decides_as_the_policy_does() -> None:
    rng = random.Random(0)
    followed = set()
    for _ in range(60):
        policy = random_policy(rng)
        drawn = list(trees(draw_text(policy)))
        for _ in range(40):
            key, context, readings = rng.randrange(99), rng.choice(["x", "y", "any other"]), random_readings(rng)
            part = ("75.0%", "25.0%")[policy.arm(key)] + " of requests"
            (found,) = [
                (tree, marks) for title, tree, marks in drawn if title.startswith(part) and is_of(title, context)
            ]
            action = policy.decide(readings, context=context, key=key)
            assert follow(*found, readings) == action
            followed.add(type(action))
    assert followed == {Call, Verify, Accept, Abstain}


VOTES = load_policy(Path(__file__).resolve().parents[1] / "golden" / "votes.json")


def test_a_poll_is_drawn_with_the_tallies_at_which_it_stops() -> None:
    assert draw_text(VOTES).splitlines()[4:] == [
        "every request",
        "call small, poll self_verify of small (up to 5 votes)",
        "├─ 0 of 2 yes or 1-2 of 5 yes or missing (32.5%): call large, accept large, quality 0.88",
        "└─ 3 of 3 yes or 3 of 4 yes or 3 of 5 yes (67.5%): accept small, quality 0.80",
    ]
    chart = draw_mermaid(VOTES)
    assert '["call small<br/>poll self_verify of small (up to 5 votes)"]' in chart
    assert "3 of 3 yes or 3 of 4 yes or 3 of 5 yes (67.5%)" in chart


def test_who_follows_the_drawing_of_a_poll_stops_where_the_policy_does() -> None:
    (tree,) = [tree for _, tree, _ in trees(draw_text(VOTES))]
    ends = {}
    for child in tree.below:
        for label in child.label.split(" or "):
            if label != "missing":
                low, high, asked = re.fullmatch(r"(\d+)(?:-(\d+))? of (\d+) yes", label).groups()  # type: ignore[union-attr]
                ends |= {(yes, int(asked)): child.steps for yes in range(int(low), int(high or low) + 1)}
    come = set()
    for order in itertools.product((0, 1), repeat=5):
        for asked in range(1, 6):
            tally = (sum(order[:asked]), asked)
            action = VOTES.decide({"small": tally})
            if isinstance(action, Verify):
                assert tally not in ends
                continue
            come.add(tally)
            assert ends[tally][0].startswith("accept small" if action == Accept("small") else "call large")
            break
    assert come == set(ends)


def is_of(title: str, context: str) -> bool:
    return context in title.split(", context ")[1].split(", ")


def test_who_follows_the_flowchart_decides_as_the_graph_of_most_requests_does() -> None:
    rng = random.Random(3)
    for _ in range(40):
        policy = believing(random_policy(rng), {})  # with shares, rare branches would be left out
        key = next(key for key in range(99) if policy.arm(key) == 0)
        drawn = list(charted(draw_mermaid(policy)))
        for _ in range(20):
            context, readings = rng.choice(["x", "y", "any other"]), random_readings(rng)
            (tree,) = [tree for title, tree in drawn if is_of(title, context)]
            assert follow(tree, {}, readings) == policy.decide(readings, context=context, key=key)


def charted(text: str) -> Iterator[tuple[str, Line]]:
    """Title and tree of every start of a flowchart."""
    found: dict[str, tuple[str, Line]] = {}
    lines: dict[str, Line] = {}
    for start, title, parent, label, name, box, end in check_chart(text):
        steps = html.unescape(box or end).split("<br/>")
        if start:
            found[start] = (html.unescape(title), Line("", None, [], None))
            lines[start] = found[start][1]
        else:
            lines[name] = Line(html.unescape(label), None, steps, None)
            lines[parent].below.append(lines[name])
    for title, root in found.values():
        (tree,) = root.below
        yield title, tree


def test_shares_of_siblings_add_up_to_their_parent_s() -> None:
    def check(line: Line, share: float) -> int:
        parts = [child.share for child in line.below]
        assert None not in parts
        if parts:
            assert sum(p for p in parts if p is not None) == pytest.approx(share, abs=0.05 * (len(parts) + 1) + 1e-9)
        return len(parts) + sum(check(child, child.share or 0.0) for child in line.below)

    rng = random.Random(1)
    drawn = [tree for _ in range(30) for _, tree, _ in trees(draw_text(random_policy(rng)))]
    assert sum(check(tree, 100.0) for tree in drawn) > 300


def test_a_number_in_brackets_stands_at_one_subtree_of_its_tree() -> None:
    rng = random.Random(2)
    for _ in range(60):
        text = draw_text(random_policy(rng))
        for (_, _, numbered), part in zip(trees(text), text.split("\n\n")[1:], strict=True):
            assert all(line.below for line in numbered.values())
            assert set(re.findall(r"as at \[(\d+)\]", part)) == set(numbered)
            assert len(re.findall(r"  \[\d+\]", part)) == len(numbered)


def test_branches_that_almost_no_query_takes_are_left_out_of_the_flowchart_alone() -> None:
    rare = replace(BELIEFS[1][0], share=1e-4)
    policy = believing(POLICY, {**BELIEFS, 1: (rare, *BELIEFS[1][1:])})
    assert "conf < 0.3 (0.0%)" in draw_text(policy)
    assert "conf &lt; 0.3" not in draw_mermaid(policy)


def test_the_first_shares_are_those_of_the_log() -> None:
    log = shared_difficulty(2, 5, missing=0.1).draw(2_000, 3)
    policy = fit(log, price=0.15, learner=TableLearner(bins=5), folds=2, compare=False).policy
    (_, tree, _), *others = trees(draw_text(policy))
    assert not others
    assert tree.steps == ["call tier1", "read conf of tier1"]
    confidence = log.tier("tier1").readings[0].confidence
    for branch in tree.below:
        inside = [holds(branch.label, "conf", None if np.isnan(c) else float(c)) for c in confidence]
        assert branch.share == pytest.approx(100 * np.mean(inside), abs=1.0)


# ------------------------------------------------------------------------------------- names that could break it

PLAIN = r'([^"<>|\r\n]*)'
STEPS = r'([^"<>|\r\n]*(?:<br/>[^"<>|\r\n]*)*)'
START = rf'  (start\d+)\(\["{PLAIN}"\]\)'
EDGE = rf'  (\w+) -->(?:\|"{PLAIN}"\|)? (\w+)(?:\["{STEPS}"\]|\(\["{STEPS}"\]\)(?::::tier\d+)?)'
STYLE = r"  classDef (tier\d+) [a-z0-9#:,]+"
NASTY = [
    'with "quotes"',
    "a<b>c",
    "R&D",
    "&quot;",
    "x|y",
    "[square] (round) {curly}",
    "])-->|n1",
    "naïve 模型 🙂",
    "back\\slash",
    "`ticks`",
    "end",
    "%%{init: {}}%%",
    "; graph TD;",
    "<br/>",
    "a<br/>b",
    "two\nlines",
    "tab\tbed",
    "#35;",
    "",
]


def check_chart(text: str) -> list[tuple[str, ...]]:
    """Start, title, parent, label, name, box and end of each line; ends of edges are declared, once, parents first."""
    first, *lines, last = text.split("\n")
    assert first == "flowchart LR"
    assert last == ""
    declared: list[str] = []
    found = []
    for line in lines:
        match = re.fullmatch(f"{START}|{EDGE}|{STYLE}", line)
        assert match, line
        start, title, parent, label, name, box, end, style = (group or "" for group in match.groups())
        if not style:
            assert start or parent in declared, line
            declared.append(start or name)
            found.append((start, title, parent, label, name, box, end))
    assert len(set(declared)) == len(declared)
    assert set(re.findall(r":::(tier\d+)", text)) <= set(re.findall(r"classDef (tier\d+)", text))
    return found


def renamed(name: str) -> Policy:
    """The small policy with one name for its cheap tier, its judge and a context."""
    swap = {"small": name, "judge": f"{name}?"}

    def node(old: Ask | Read | Stop) -> Ask | Read | Stop:
        match old:
            case Stop(Accept(tier)):
                return Stop(Accept(swap.get(tier, tier)))
            case Ask(tier, then):
                return Ask(swap.get(tier, tier), then)
            case Read(tier, reading, cuts, then, missing):
                return Read(swap.get(tier, tier), swap.get(reading, reading), cuts, then, missing)
        return old

    readings = tuple(replace(r, name=swap.get(r.name, r.name)) for r in SMALL.readings)
    return replace(
        POLICY,
        tiers=(Tier(name, 1.0, readings), LARGE),
        nodes=tuple(map(node, POLICY.nodes)),
        vertices=(Vertex(0.05, 4.0, 0.8, 0, {name: 0}, BELIEFS),),
    )


@pytest.mark.parametrize("name", NASTY)
def test_no_name_breaks_a_flowchart(name: str) -> None:
    chart = check_chart(draw_mermaid(renamed(name)))
    if name.isprintable():
        texts = {html.unescape(step) for *_, box, end in chart for step in (box or end).split("<br/>")}
        assert {f"call {name}", f"read {name}? of {name}", f"accept {name}, quality 0.90"} <= texts
        assert html.unescape(chart[0][1]) == f"every request, context {name}, any other"


@pytest.mark.parametrize("name", ["#35;", "a #quot; b"])
def test_no_name_is_taken_for_an_entity_of_mermaid_s(name: str) -> None:
    assert not re.search(re.escape(name), draw_mermaid(renamed(name)))


@pytest.mark.parametrize("name", NASTY)
def test_no_name_breaks_a_line_of_the_text(name: str) -> None:
    plain, odd = draw_text(renamed("plain")), draw_text(renamed(name))
    assert len(odd.splitlines()) == len(plain.splitlines())
    if name.isprintable():
        assert odd == plain.replace("plain", name)


@examples(25)
@given(policies())
def test_any_policy_can_be_drawn(policy: Policy) -> None:
    assert draw_text(policy).startswith("tiers: ")
    assert draw_mermaid(policy).startswith("flowchart LR\n  start0([")


@pytest.mark.parametrize(("share", "graphs"), [(4e-4, 1), (6e-4, 2), (0.5, 2), (1.0 - 4e-4, 1)])
def test_a_graph_that_next_to_no_request_follows_is_left_out(share: float, graphs: int) -> None:
    mixed = load_policy(Path(__file__).resolve().parents[1] / "golden" / "votes.json")
    vertex = mixed.vertices[0]
    two = replace(mixed, vertices=(vertex, replace(vertex, cost=vertex.cost + 1.0)), point=OperatingPoint(0, 1, share))
    assert draw_text(two).count("% of requests") == graphs
