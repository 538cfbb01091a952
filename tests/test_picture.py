"""The picture in the README is what the demo's policy looks like."""

from pathlib import Path

from metaverify import fit, load_digits_log
from metaverify.policies.drawing import draw_mermaid

README = Path(__file__).parent.parent / "README.md"


def test_the_readme_shows_the_policy_that_the_demo_fits() -> None:
    drawn = draw_mermaid(fit(load_digits_log(), budget=2.0, compare=False).policy)
    assert f"```mermaid\n{drawn}```" in README.read_text(encoding="utf-8")
