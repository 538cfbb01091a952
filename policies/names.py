"""Names: what may be one, and which one was meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["TURNING", "did_you_mean", "look_of", "name_fault"]

TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # Bidi_Control
TWINS = str.maketrans("асеіјорухѕԁαενορτυχ", "aceijopyxsdaevoptux")
"""Cyrillic and Greek letters that look like Latin ones."""

JOINERS = "\u200c\u200d"
HIDDEN = {"Cc": "control", "Zl": "control", "Zp": "control", "Cf": "format"}
LONGEST = 80  # letters of a misspelt name that is looked up: the search takes time with the square of them


def name_fault(names: Sequence[str]) -> tuple[int, str] | None:
    """Which of these names is none, and why: it is empty, has a letter that cannot be seen or a space at an end, or
    looks like another.

    Example:
        >>> name_fault(["small", "large"]), name_fault(["small", "la\\trge"])
        (None, (1, "is 'la\\\\trge', with the control character U+0009"))
    """
    seen: dict[str, str] = {}
    for at, name in enumerate(names):
        if not name:
            return at, "is empty"
        if hidden := _hidden(name):
            return at, f"is {name!a}, with the {hidden[0]} character U+{ord(hidden[1]):04X}"
        if name != name.strip():
            return at, f"is {name!a}, with a space at its {'start' if name[0].isspace() else 'end'}"
        other = seen.setdefault(look_of(name), name)
        if other != name:
            return at, f"is {name!a}, which looks like {other!a}: rename one"
    return None


def _hidden(name: str) -> tuple[str, str] | None:
    """The kind of the first letter that cannot be seen, and the letter.

    What joins or parts two letters is one of them only beside plain letters: other scripts need it.
    """
    if name.isascii() and name.isprintable():
        return None
    from unicodedata import category  # a router's names seldom need it

    for at, letter in enumerate(name):
        kind = "bidi" if letter in TURNING else HIDDEN.get(category(letter))
        beside = (name[at - 1 : at], name[at + 1 : at + 2])
        if kind and not (letter in JOINERS and all(one and not one.isascii() for one in beside)):
            return kind, letter
    return None


def look_of(name: str) -> str:
    """What a reader takes a name for: without case, spaces around it, how accents are written, or borrowed letters."""
    if name.isascii():
        return name.strip().lower()
    from unicodedata import normalize  # a router's names seldom need it

    seen = normalize("NFKC", normalize("NFKC", name).casefold()).translate(TWINS)
    return "".join(letter for letter in seen if letter not in JOINERS).strip()


def did_you_mean(wanted: str, known: Iterable[object]) -> str:
    """The end of a message about a name that is not known: the one that was meant, or nothing."""
    import difflib  # only for messages, and slow to import

    near = difflib.get_close_matches(wanted[:LONGEST], sorted(map(str, known)))
    return f"; did you mean {near[0]!r}?" if near else ""
