"""Names: what may be one, and which one was meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["did_you_mean", "name_fault"]

TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # Bidi_Control
LONGEST = 80  # letters of a misspelt name that is looked up: the search takes time with the square of them


def name_fault(names: Sequence[str]) -> tuple[int, str] | None:
    """Which of these names is none, and why: it is empty, has a control or bidi character, or looks like another.

    Example:
        >>> name_fault(["small", "large"]), name_fault(["small", "la\\trge"])
        (None, (1, "is 'la\\\\trge', with the control character U+0009"))
    """
    seen: dict[str, str] = {}
    for at, name in enumerate(names):
        if not name:
            return at, "is empty"
        for letter in name:
            if letter in TURNING or ord(letter) < 32 or 127 <= ord(letter) < 160 or letter in "\u2028\u2029":
                kind = "bidi" if letter in TURNING else "control"
                return at, f"is {name!a}, with the {kind} character U+{ord(letter):04X}"
        other = seen.setdefault(_composed(name), name)
        if other != name:
            return at, f"is {name!a}, which looks like {other!a}: write both in one Unicode form"
    return None


def _composed(name: str) -> str:
    if name.isascii():
        return name
    from unicodedata import normalize  # a router's names seldom need it

    return normalize("NFC", name)


def did_you_mean(wanted: str, known: Iterable[object]) -> str:
    """The end of a message about a name that is not known: the one that was meant, or nothing."""
    import difflib  # only for messages, and slow to import

    near = difflib.get_close_matches(wanted[:LONGEST], sorted(map(str, known)))
    return f"; did you mean {near[0]!r}?" if near else ""
