"""What the documentation shows can be run, in order, and where it points there is something.

In README.md and docs/*.md every block fenced as ``python`` is executed and every ``$ metaverify …`` of a ``console``
block is run, file by file in one empty folder and one namespace.  ``no-run`` after the language passes a block over;
a name after it writes the block to that file.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^( *)(```+|~~~+) *([^\n`]*)$")
LINK = re.compile(
    r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s*(\S+)|(?:href|src)=\"([^\"]+)\""
)


@dataclass(frozen=True)
class Block:
    """A fenced block: what stands after the fence, the line below it, and its text."""

    info: tuple[str, ...]
    line: int
    text: str


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order.

    Raises:
        ValueError: a fence is not closed.
    """
    opened: tuple[str, str, tuple[str, ...], int] | None = None
    body: list[str] = []
    for number, line in enumerate(page.splitlines(), start=1):
        fence = FENCE.match(line)
        if opened is None:
            if fence:
                opened, body = (fence[1], fence[2], tuple(fence[3].split()), number + 1), []
        elif fence and fence[2].startswith(opened[1]) and not fence[3].strip():
            yield Block(opened[2], opened[3], "\n".join(body) + "\n")
            opened = None
        else:
            body.append(line.removeprefix(opened[0]))
    if opened:
        raise ValueError(f"the fence above line {opened[3]} is not closed")


def commands(text: str) -> Iterator[str]:
    """The ``$ …`` lines of a console block, with the lines that a backslash joins to them."""
    joined = re.sub(r"\\\n\s*(?:> )?", " ", text)
    return (line.removeprefix("$ ") for line in joined.splitlines() if line.startswith("$ "))


def links(page: str) -> Iterator[str]:
    """Where a page points within the repository, outside its fenced blocks."""
    inside: str | None = None
    for line in page.splitlines():
        fence = FENCE.match(line)
        if fence and inside is None:
            inside = fence[2]
        elif fence and inside and fence[2].startswith(inside) and not fence[3].strip():
            inside = None
        elif inside is None:
            for found in LINK.finditer(re.sub(r"`[^`]*`", "", line)):
                target = next(group for group in found.groups() if group)
                if not re.match(r"[a-z][a-z0-9+.-]*:|//", target, re.IGNORECASE):
                    yield target


def anchors(page: str) -> set[str]:
    """The anchors that headings make, and those written out."""
    found = set(re.findall(r"(?:id|name)=\"([^\"]+)\"", page))
    for heading in re.findall(r"^#{1,6} +(.*?) *#*$", page, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return found


def run_command(command: str, folder: Path) -> None:
    """Run one line of shell in which ``metaverify`` is this interpreter's."""
    shell = shutil.which("bash")
    assert shell, "the commands of the documentation are written for bash"
    prelude = 'set -euo pipefail; metaverify() { "$METAVERIFY_PYTHON" -m metaverify "$@"; }; '
    ran = subprocess.run(
        [shell, "-c", prelude + command],
        cwd=folder,
        env=os.environ | {"METAVERIFY_PYTHON": sys.executable, "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert ran.returncode == 0, f"$ {command}\n{ran.stdout}{ran.stderr}"


def run_page(page: Path) -> None:
    """Run every block of a page in the present folder."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page.read_text("utf-8")):
        if "no-run" in block.info[1:]:
            continue
        if block.info[1:]:
            Path(block.info[1]).write_text(block.text, encoding="utf-8")
            continue
        if block.info[:1] == ("python",):
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            exec(code, namespace)
        elif block.info[:1] == ("console",):
            for command in commands(block.text):
                if command.split()[:1] == ["metaverify"]:
                    run_command(command, Path.cwd())


def broken_links(page: Path) -> list[str]:
    """The links of a page to files or headings of the repository that are not there."""
    text = page.read_text("utf-8")
    wrong = []
    for link in links(text):
        path, _, anchor = unquote(link).partition("#")
        target = (ROOT / path.lstrip("/") if path.startswith("/") else page.parent / path) if path else page
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in anchors(target.read_text("utf-8"))
        ):
            wrong.append(link)
    return wrong


@pytest.mark.filterwarnings("ignore:Items? .* using the `ReadOnly` qualifier:UserWarning")  # LiteLLM's own
@pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_everything_that_a_page_shows_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    run_page(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    assert broken_links(page) == []


# ------------------------------------------------------------------------------------------ the test of the test


EXAMPLE = """# A page

See [the other](other.md), [its part](other.md#part-two-no-dots), [here](#a-page), [there](https://example.org/x),
`[code](nowhere.md)`, ![a picture](gone.png "title") and [lost](#lost).

```python
with open("made.txt", "w") as file:
    file.write("1")
x = 1
```

```python no-run
raise SystemExit("never")
```

1. indented:
   ```python
   x += 1
   assert x == 2
   ```

```console
$ metaverify \\
>   --version > version.txt
$ cat made.txt
0.1.0
```

```text kept.txt
kept
```

```text
[not a link](nowhere.md)
$ metaverify nonsense
```

[ref]: gone.md
"""


def test_a_page_is_run_in_order_and_its_links_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(EXAMPLE)
    (tmp_path / "other.md").write_text("## Part two: `no` dots.\n".replace("`", ""))
    run_page(page)
    assert (tmp_path / "made.txt").read_text() == "1"
    assert (tmp_path / "version.txt").read_text().strip()
    assert (tmp_path / "kept.txt").read_text() == "kept\n"
    assert broken_links(page) == ["gone.png", "#lost", "gone.md"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\nint('x')\n```\n", "invalid literal"),
        ("```console\n$ metaverify nonsense\n```\n", r"\$ metaverify nonsense"),
        ("```python\nx = 1\n", "line 2 is not closed"),
    ],
)
def test_a_page_that_does_not_run_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises((AssertionError, ValueError), match=message):
        run_page(page)
