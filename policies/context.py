"""The name of a context: what is known of a query before any call, in one word for each column."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Collection, Sequence
from itertools import pairwise

TYPE_CHECKING = False  # the module `typing` is dear to import
if TYPE_CHECKING:
    from typing import Any

__all__ = ["context_label", "context_word", "interval_label", "interval_labels", "split_label"]


def context_label(values: Sequence[str]) -> str:
    """The name of a context from the values of its columns: the value itself, or several joined with "/".

    A "/" or a backslash within one of several values is written with a backslash before it.

    Example:
        >>> context_label(["math/algebra"]), context_label(["a/b", "c"])
        ('math/algebra', 'a\\\\/b/c')
    """
    if len(values) == 1:
        return values[0]
    return "/".join(value.replace("\\", "\\\\").replace("/", "\\/") for value in values)


def context_word(name: str, value: Any) -> str:
    """The value of a column without cuts as a log has it: "true" and "false", and nothing where it is missing, that is
    None or no finite number.

    Raises:
        TypeError: it is no plain value.

    Example:
        >>> [context_word("task", value) for value in ("math", 3, True, None)]
        ['math', '3', 'true', '']
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Collection):
        raise TypeError(f"the context's {name!r} is {value!r}, not one plain value")
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    word = str(value)
    return word.lower() if word in ("True", "False") else word  # also numpy's


def split_label(label: str, columns: int) -> tuple[str, ...]:
    """The values of so many columns that a label was made of: `context_label` undone.

    Example:
        >>> split_label("a\\\\/b/c", 2), split_label("math/algebra", 1)
        (('a/b', 'c'), ('math/algebra',))
    """
    if columns == 1:
        return (label,)
    return tuple(
        re.sub(r"\\(.)", r"\1", part, flags=re.S) for part in re.findall(r"(?:^|/)((?:\\.|[^\\/])*)", label, re.S)
    )


def interval_label(name: str, cuts: Sequence[float], value: Any) -> str:
    """The interval between rising cuts that a column's value falls in; what is no finite number is missing.  A text
    that reads as a number is that number, as it is in a log.

    Example:
        >>> interval_label("tokens", (120.0, 480.0), 120), interval_label("tokens", (120.0, 480.0), None)
        ('120<=tokens<480', 'tokens missing')
    """
    number = _number(value)
    return interval_labels(name, cuts)[bisect_right(cuts, number) if math.isfinite(number) else -1]


def interval_labels(name: str, cuts: Sequence[float]) -> tuple[str, ...]:
    """The names of all intervals between rising cuts, at least one, and of a missing number last.

    Example:
        >>> interval_labels("tokens", (120.0, 480.0))
        ('tokens<120', '120<=tokens<480', 'tokens>=480', 'tokens missing')
    """
    ends = [repr(float(cut)).removesuffix(".0") for cut in cuts]
    inner = (f"{low}<={name}<{high}" for low, high in pairwise(ends))
    return f"{name}<{ends[0]}", *inner, f"{name}>={ends[-1]}", f"{name} missing"


def _number(value: Any) -> float:
    """The value as a float, as a log would hold it; NaN where it is no number."""
    if isinstance(value, str):
        value = value if value.isascii() and "_" not in value else math.nan  # float() takes more than a log does
    elif isinstance(value, bytes | bytearray) or not hasattr(value, "__float__"):
        return math.nan
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError):
        return math.nan
