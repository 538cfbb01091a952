"""A policy as one web page that needs nothing else: no network, no server, nothing that is not in the file."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from metaverify.comparison import CLEAR, TELLING, terms, verdict
from metaverify.policies.document import parse_document
from metaverify.policies.file import dump_policy
from metaverify.policies.policy import Policy

__all__ = ["SIZE_LIMIT", "load_comparison", "report_page"]

SIZE_LIMIT = 3_000_000
"""Bytes of a page, below which it can be mailed and opens at once."""

FORMAT, VERSION = "metaverify-comparison", 1

NEEDED = {
    "log": dict,
    "budgets": list,
    "cost_range": list,
    "hull": list,
    "oracle": dict,
    "methods": list,
    "failed": list,
    "differences": dict,
    "calibration": list,
}
"""What a comparison must have to be drawn, and of which type."""

STYLES = ("page.css",)
SCRIPTS = (
    "decide.js",
    "svg.js",
    "graph.js",
    "charts.js",
    "dial.js",
    "trees.js",
    "hand.js",
    "comparison.js",
    "record.js",
    "page.js",
)


def report_page(policy: Policy, comparison: Mapping[str, Any] | None = None) -> str:
    """The page of a policy, and of a comparison of methods on its log where there is one (see `load_comparison`).

    Everything drawn comes from the two, by the page's own script; no other text of theirs is in the page's markup.
    Who wins, what the scores mean and what is called clear are said as the terminal says it.

    Raises:
        ValueError: the page would be larger than ``SIZE_LIMIT``, or the comparison lacks what its verdict is made of.
    """
    style, script = (_joined(names) for names in (STYLES, SCRIPTS))
    parts = {
        "csp": _content_policy(style, script),
        "style": style,
        "policy": _data(json.loads(dump_policy(policy))),
        "comparison": _data(None if comparison is None else _told(comparison)),
        "levels": _data({"clear": CLEAR, "telling": TELLING}),
        "script": script,
    }
    page = _file("page.html")
    for name, text in parts.items():
        before, _, after = page.partition(f"<!-- {name} -->")
        page = before + text + after
    size = len(page.encode())
    if size > SIZE_LIMIT:
        raise ValueError(f"the page would have {size:,} bytes, more than {SIZE_LIMIT:,}; leave methods out of it")
    return page


def load_comparison(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A comparison as ``metaverify compare`` writes it.

    Raises:
        ValueError: it is none.
        OSError: it cannot be read.
    """
    try:
        document = parse_document(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if document.get("format") != FORMAT or document.get("version") != VERSION:
        found = f"{document.get('format')!r} version {document.get('version')!r}"
        raise ValueError(f"{path} is {found}, not a comparison; `metaverify compare LOG -o FILE` writes one")
    for name, kind in NEEDED.items():
        if not isinstance(document.get(name), kind):
            raise ValueError(f"{path} lacks {name!r}, or has something else there; write the comparison again")
    return document


def _told(comparison: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {**comparison, "verdict": verdict(comparison), "terms": terms(comparison)}
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"the comparison has something missing or out of place ({type(error).__name__}: {error}); write it again"
        ) from None


def _file(name: str) -> str:
    return files("metaverify.page").joinpath(name).read_text("utf-8")


def _joined(names: tuple[str, ...]) -> str:
    return "\n" + "\n".join(_file(name) for name in names)


def _data(value: object) -> str:
    """A value as JSON that cannot end the element which it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _content_policy(style: str, script: str) -> str:
    """What the page may do: run its own script and style, known by their hashes, and nothing else."""
    hashed = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    style_hash, script_hash = (f"'sha256-{digest}'" for digest in hashed)
    rules = (
        "default-src 'none'",
        f"style-src {style_hash}",
        f"script-src {script_hash}",
        "base-uri 'none'",
        "form-action 'none'",
    )
    return html.escape("; ".join(rules), quote=False)
