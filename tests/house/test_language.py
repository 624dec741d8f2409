"""Code and documents use the field's words: some phrases that hide a known thing do not come back."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    ROOT / "README.md",
    *(ROOT / ".github").glob("*.md"),
    *(
        path
        for folder in ("textcls", "jobs", "cluster")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".yaml", ".html") or path.name == "Dockerfile"
    ),
]
# A phrase -> the words for it. Processes are not persons, and no sentence begins with a fused relative.
INSTEAD = {
    r"(?:is|are|was|were|be|been|being) told": "is reported, is configured, receives",
    r"mak(?:e|es|ing) way|made.way|make_way": "preemption, rescale, stops at a checkpoint",
    r"vouch\w*": "signs, verifies",
    r"hired|hires": "starts actors",
    r"lets? in to": "grants access to",
    r"of late": "recent",
    r"(?:for|after|takes) so long": "for this long; name the setting",
    r"What would": "Requests that would ...",
    r"stands? (?:once|twice|exactly|there|under|beside|in place)": "appears, is",
    r"sees? to it": "makes sure, ensures",
    r"nobody knows": "is unknown",
    r"once more": "again",
    r"begins? so\b": "begins with it",
    r"an order of chance": "random order",
}


@pytest.mark.parametrize("phrase", INSTEAD)
def test_no_private_phrase_for_a_known_thing(phrase: str) -> None:
    pattern = re.compile(rf"\b(?:{phrase})\b".replace(" ", r"[\s#]+"))
    found = []
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        lines = [text.count("\n", 0, match.start()) + 1 for match in pattern.finditer(text)]
        found += [f"{path.relative_to(ROOT)}:{line}" for line in lines]
    assert found == [], f"say: {INSTEAD[phrase]}"
