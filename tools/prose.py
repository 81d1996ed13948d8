"""How the project's prose reads: sentence length, stops within sentences, and words of our own idiom.

    python tools/prose.py [FILE ...]      # default: README.md, CONTRIBUTING.md, CHANGELOG.md and docs/**/*.md

Code blocks, tables, headings, code spans and the addresses of links are left out. An item of a list is at least one
sentence. The aims are at most 16 words and 0.3 semicolons and colons a sentence. This is a measure, not a gate.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROSE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md", "docker/README.md", "docs/**/*.md")
IDIOM = re.compile(
    r"\b(lies?|wants?|told|tells?|found|in the place of|figures?|learned again|too many|is held|a word for|whatever)\b",
    re.IGNORECASE,
)
"""Words that this project once used for is, needs, reported, detected, instead of, metric and pixel self-training."""


def sentences(text: str) -> list[str]:
    """The sentences of a Markdown text."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    paragraphs: list[str] = [""]
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith(("|", "#", "!")):
            paragraphs.append("")
            continue
        if re.match(r"([-*]|\d+\.) ", stripped):
            paragraphs.append("")
            stripped = re.sub(r"^([-*]|\d+\.) ", "", stripped)
        paragraphs[-1] += " " + stripped
    found = []
    for paragraph in paragraphs:
        plain = re.sub(r"\]\([^)]*\)", "]", paragraph)
        plain = re.sub(r"`[^`]*`", "code", plain)
        found += [each.strip() for each in re.split(r"(?<=[.!?])[*_)\"]*\s+(?=[A-Z*`\"(\[])", plain) if each.strip()]
    return [each for each in found if len(each.split()) > 1]


def measures(text: str) -> tuple[int, float, float, float]:
    """Sentences, words a sentence, semicolons and colons a sentence, idiom words in 1,000 words."""
    found = sentences(text)
    words = sum(len(each.split()) for each in found)
    stops = sum(len(re.findall(r"[;:](?=\s|$)", each)) for each in found)
    idiom = sum(len(IDIOM.findall(each)) for each in found)
    count = max(len(found), 1)
    return len(found), words / count, stops / count, 1000 * idiom / max(words, 1)


def main() -> None:
    """Print a line a file, and one for all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", type=Path)
    files = parser.parse_args().files or [path for pattern in PROSE for path in sorted(ROOT.glob(pattern))]
    print(f"{'':36} sentences  words  ; and :  idiom/1000")
    texts = [path.read_text() for path in files]
    for name, text in [*zip(map(str, files), texts, strict=True), ("all", "\n\n".join(texts))]:
        count, words, stops, idiom = measures(text)
        print(f"{name.removeprefix(f'{ROOT}/'):36} {count:9d} {words:6.1f} {stops:8.2f} {idiom:11.1f}")


if __name__ == "__main__":
    main()
