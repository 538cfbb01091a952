"""The conformance vectors are what their maker writes, and the readers that there are pass them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from hashlib import blake2b
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from metaverify.policies.explain import action_json
from metaverify.policies.file import PolicyFileError, parse_policy
from metaverify.policies.graph import Ask, Node, Poll, Read, Stop, compact
from metaverify.policies.policy import Policy
from tests.conformance.write import VECTORS, conformance_files, untagged
from tests.policies.reader import drawn, followed, identity, labelled, started

HERE = Path(__file__).resolve().parent
SCRIPT = HERE.parents[1] / "metaverify" / "page" / "decide.js"
NODE = shutil.which("node") or shutil.which("nodejs")
FILES = [f"decide-{name}.json" for name in VECTORS]
BEYOND = ("decide-intervals.json", "decide-labels.json")  # labels that the reader of the tests does not make
DOCUMENTS = json.loads((HERE / "documents.json").read_text("utf-8"))["documents"]

node = pytest.mark.skipif(NODE is None, reason="no JavaScript: apt-get install nodejs")


def vectors(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / name).read_text("utf-8"))
    return found


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return conformance_files()


def test_there_are_no_other_vectors_and_they_are_small(written: dict[str, str]) -> None:
    assert {path.name for path in HERE.glob("*.json")} == written.keys()
    assert sum(path.stat().st_size for path in HERE.glob("*.json")) < 2_000_000


@pytest.mark.parametrize("name", [*FILES, "draws.json", "documents.json"])
def test_the_vectors_are_what_their_maker_writes(name: str, written: dict[str, str]) -> None:
    found = (HERE / name).read_bytes().decode()
    assert found == written[name], "changed on purpose? run `python -m tests.conformance.write`"


@pytest.mark.parametrize("name", FILES)
def test_the_library_decides_and_refuses_as_the_vectors_say(name: str) -> None:
    body = vectors(name)
    filed = parse_policy(body["policy"].encode())
    for case in body["cases"]:
        told = {key: untagged(value) for key, value in case.items()}

        def decided(told: dict[str, Any] = told) -> dict[str, str]:
            dial = {key: told[key] for key in ("budget", "price") if key in told}
            policy = (filed.at(**dial) if dial else filed).without(*told.get("without", ()))
            return action_json(policy.decide(told["readings"], context=told.get("context"), key=told.get("key")))

        if "refused" in case:
            with pytest.raises((ValueError, TypeError)):
                decided()
        else:
            assert decided() == case["action"], case


@pytest.mark.parametrize(
    "name", [name for name in FILES if name not in ("decide-intervals.json", "decide-labels.json")]
)
def test_a_reader_that_knows_only_the_file_decides_the_same(name: str) -> None:
    body = vectors(name)
    document, count = json.loads(body["policy"]), 0
    plain = [case for case in body["cases"] if "action" in case and not {"budget", "price"} & case.keys()]
    for case in plain:
        readings = untagged(case["readings"])
        vertex = document["vertices"][drawn(document, case.get("key", ""))]
        start = started(vertex, case.get("without", ()))
        label = labelled(document, case.get("context"))
        root = start["root"] if label is None else start["context_roots"].get(label, start["root"])
        if any(value != value for given in readings.values() for value in flat(given)):
            continue  # NaN among votes is beyond that reader
        assert followed(document, root, readings) == case["action"], case
        count += 1
    assert count > len(plain) / 2


def flat(given: Any) -> list[Any]:
    return list(given.values()) if isinstance(given, dict) else [given]


@pytest.mark.parametrize("name", FILES)
def test_every_call_reading_and_end_of_a_policy_is_some_cases_action(name: str) -> None:
    body = vectors(name)
    policy = parse_policy(body["policy"].encode())
    used = {policy.point.low, policy.point.high} if name != "decide-dial.json" else range(len(policy.vertices))
    nodes, _ = compact(policy.nodes, [root for at in used for root in policy.vertices[at].roots])
    wanted = {tuple(sorted(action.items())) for node in nodes for action in wants(node, policy)}
    assert wanted == {tuple(sorted(case["action"].items())) for case in body["cases"] if "action" in case}


def wants(node: Node, policy: Policy) -> list[dict[str, str]]:
    """What a node asks for, which is each part of a fused reading."""
    match node:
        case Stop(action):
            return [action_json(action)]
        case Ask(tier, _):
            return [{"action": "call", "tier": tier}]
        case Read() | Poll() as look:
            readings = next(tier.readings for tier in policy.tiers if tier.name == look.tier)
            parts = next(reading.parts for reading in readings if reading.name == look.reading)
            names = [part.reading for part in parts] or [look.reading]
            return [{"action": "verify", "tier": look.tier, "reading": name} for name in names]


def test_draws_are_a_hash_of_seven_bytes_below_a_share() -> None:
    body = vectors("draws.json")
    for row in body["draws"]:
        assert blake2b(str(row["key"]).encode(), key=row["salt"].encode(), digest_size=7).hexdigest() == row["draw"]
    for row in body["limits"]:
        assert int(row["limit"], 16) == ceil(row["share"] * 2.0**56)


@pytest.mark.parametrize("document", DOCUMENTS, ids=[document["about"] for document in DOCUMENTS])
def test_documents_have_the_id_or_the_fault_that_the_vectors_say(document: dict[str, Any]) -> None:
    file = document["file"].encode()
    if "refused" in document:
        with pytest.raises(PolicyFileError, match=rf"^{document['refused']}\b"):
            parse_policy(file)
    else:
        assert parse_policy(file)
        assert document["id"] == identity(json.loads(file)) == json.loads(file)["id"]
        assert document["id"] == "sha256:" + hashlib.sha256(document["canonical"].encode()).hexdigest()


def ran(*readers: Path) -> list[dict[str, Any]]:
    """What each of these readers gets wrong, of how many checks."""
    assert NODE is not None
    command = [NODE, HERE / "run.cjs", HERE, *readers]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@node
def test_the_javascript_reader_passes_every_vector() -> None:
    cases = sum(len(vectors(name)["cases"]) for name in FILES)
    (found,) = ran(SCRIPT)
    assert found["wrong"] == []
    assert found["count"] > cases > 3000, found["count"]


MISTAKES = {
    "a tie falls below the cut": ("cuts[place] <= value", "cuts[place] < value"),
    "NaN is a number": ("usable = confidence >= 0 && confidence <= 1", "usable = !(confidence > 1)"),
    "a number a little above 1 is 1": ("confidence <= 1;", "confidence <= 1 + 1e-12;"),
    "null is 0": ("if (given === null) return NaN;", "if (given === null) return 0;"),
    "text is a number": ('if (typeof given !== "number") {', 'if (typeof given !== "number" && isNaN(given)) {'),
    "the draw is a part of a longer digest": ("encode(salt), 7);", "encode(salt), 64).subarray(0, 7);"),
    "the draw is not keyed": ("new TextEncoder().encode(salt), 7)", "new Uint8Array(0), 7)"),
    "a low draw goes low": ("drawOf(policy.salt, key) <", "drawOf(policy.salt, key) >="),
    "keys are of one byte a letter": ("new TextEncoder().encode(String(key))", 'Buffer.from(String(key), "latin1")'),
    "points are added backwards": ("for (const part of parts) {", "for (const part of parts.slice().reverse()) {"),
    "a sum above 1 is missing": ("return Math.min(score, 1);", "return score;"),
    "a missing part is nothing": (": part.missing;", ": 0;"),
    "a fused reading is asked for": ("return new Unread(part.of)", "return new Unread(name)"),
    "votes are rounded down": ("(2 * yes * most + asked) / (2 * asked)", "(yes * most) / asked"),
    "a tie among votes falls below": (
        "bisectRight(node.cuts, yes / votes)",
        "bisectRight(node.cuts, yes / votes - 1e-9)",
    ),
    "names are looked up in all objects": ("Object.hasOwn(object, name)", "name in object"),
    "a budget must be no less than a cost": ("budget >= costs[0] * (1 - 1e-9)", "budget >= costs[0]"),
    "the dearest of equals": ("(value > worth[found] ? at : found)", "(value >= worth[found] ? at : found)"),
    "slashes are not escaped": ('.replaceAll("/", "\\\\/")', ""),
    "numbers are written as JavaScript does": ("ends = cuts.map(pythonNumber);", "ends = cuts.map(String);"),
    "texts are no numbers": ("|| isNumeral(value)", ""),
    "keys are sorted by UTF-16": (".sort(([a], [b]) => byCodePoint(a, b))", ".sort()"),
    "1.0 is written as 1": ("return /[.e]/.test(text) ? text : `${text}.0`;", "return text;"),
    "the first outage that covers is taken": ("each.without.length < found.without.length", "false"),
    "an unknown key is passed over": ("if (!has(known, key)) throw", "if (false) throw"),
}


@node
def test_a_reader_with_any_likely_mistake_fails(tmp_path: Path) -> None:
    script, readers = SCRIPT.read_text("utf-8"), []
    for number, (mistake, (before, after)) in enumerate(MISTAKES.items()):
        assert before in script, mistake
        readers.append(tmp_path / f"reader{number}.cjs")
        readers[-1].write_text(script.replace(before, after), "utf-8")
    passed = [mistake for mistake, found in zip(MISTAKES, ran(*readers), strict=True) if not found["wrong"]]
    assert passed == []


@node
def test_a_key_with_half_a_surrogate_pair_is_refused_in_javascript_too() -> None:
    assert NODE is not None
    program = f"require({json.dumps(str(SCRIPT))}).drawOf('', '\\ud83d')"
    done = subprocess.run([NODE, "-e", program], capture_output=True, text=True, encoding="utf-8")
    assert "surrogate" in done.stderr
    with pytest.raises(UnicodeEncodeError):
        parse_policy(vectors("decide-share.json")["policy"].encode()).decide({}, key="\ud83d")
