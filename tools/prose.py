"""How the project's prose reads: sentence length, stops within sentences, and words of our own idiom.

    python tools/prose.py [FILE ...]      # default: the documentation, one line a file
    python tools/prose.py --code          # docstrings, messages and report pages of the packages, one line a folder
    python tools/prose.py --code --idiom  # each sentence with an idiom word, with file and line

Of Markdown, code blocks, tables, headings, code spans and the addresses of links are left out. An item of a list is at
least one sentence. Of Python, two kinds of text are read: docstrings without their indented blocks, and every other
string of four words or more (errors, log lines, help texts, captions), in which a value counts as one word. Of page
templates the text between the tags is read. The aims are at most 16 words and 0.3 semicolons and colons a sentence.
This is a measure, not a gate.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROSE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "deploy/README.md", "docker/README.md", "docs/**/*.md")
CODE = ("exact_core", "exact_kubeflow", "components", "pipelines", "deploy")
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


def docstring_sentences(text: str) -> list[str]:
    """The sentences of a docstring: each entry of Args, Returns and Raises is one, indented examples are none."""
    lines = ["", *text.expandtabs().splitlines()]
    margin = min((len(line) - len(line.lstrip()) for line in lines[2:] if line.strip()), default=0)
    prose, section, example = [], False, False
    for line in lines:
        indent, stripped = len(line) - len(line.lstrip()), line.strip()
        if re.fullmatch(r"(Args|Returns|Yields|Raises|Attributes):", stripped):
            section, example = True, False
            prose.append("")
        elif not stripped:
            prose.append("")
        elif section and indent > margin:
            entry = re.match(r"[*\w, ]+: ", stripped) if indent <= margin + 4 else None
            prose += ["", stripped[entry.end() :]] if entry else [stripped]
        else:
            section = False
            example = indent >= margin + 4 and (example or not prose[-1].strip()) and len(prose) > 1
            prose.append("" if example else stripped)
    return sentences("\n".join(prose))


def template_sentences(text: str) -> list[str]:
    """The sentences of a page's template: the text between tags, each value one word."""
    text = re.sub(r"<(style|script).*?</\1>|\{%.*?%\}|\{#.*?#\}", "", text, flags=re.DOTALL)
    text = re.sub(r"</?(p|h\d|li|td|th|tr|div|dt|dd|figure|figcaption|section|summary)\b[^>]*>", "\n\n", text)
    text = re.sub(r"<[^>]*>", "", re.sub(r"\{\{.*?\}\}", "value", text, flags=re.DOTALL))
    return [each for each in sentences(text) if len(each.split()) >= 4]


def strings(tree: ast.Module) -> Iterator[tuple[str, int, str]]:
    """Kind ("docstring" or "message"), line and text of the strings of a module."""
    documented = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented.add(node.value)
            yield "docstring", node.lineno, node.value.value
    inner = {part for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)} - {
        node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "value" for part in node.values]
            text = "".join(str(part) for part in parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {node} & (documented | inner):
            text = node.value
        else:
            continue
        if len(text.split()) >= 4:
            yield "message", node.lineno, text


def code_sentences(path: Path) -> Iterator[tuple[str, int, str]]:
    """Kind ("docstring", "message" or "page"), line and sentence of a Python file or a page's template."""
    if path.suffix == ".j2":
        yield from (("page", 1, each) for each in template_sentences(path.read_text()))
        return
    for kind, line, text in strings(ast.parse(path.read_text())):
        split = docstring_sentences if kind == "docstring" else sentences
        yield from ((kind, line, each) for each in split(text))


def measures(found: list[str]) -> tuple[int, float, float, float]:
    """Sentences, words a sentence, semicolons and colons a sentence, idiom words in 1,000 words."""
    words = sum(len(each.split()) for each in found)
    stops = sum(len(re.findall(r"[;:](?=\s|$)", each)) for each in found)
    idiom = sum(len(IDIOM.findall(each)) for each in found)
    count = max(len(found), 1)
    return len(found), words / count, stops / count, 1000 * idiom / max(words, 1)


def table(rows: dict[str, list[str]]) -> None:
    """Print a line a row, and one for all."""
    print(f"{'':46} sentences  words  ; and :  idiom/1000")
    for name, found in {**rows, "all": [each for some in rows.values() for each in some]}.items():
        count, words, stops, idiom = measures(found)
        print(f"{name:46} {count:9d} {words:6.1f} {stops:8.2f} {idiom:11.1f}")


def main() -> None:
    """Print the statistics of the documentation or of the code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--code", action="store_true", help="strings of the packages instead of the documentation")
    parser.add_argument("--idiom", action="store_true", help="list the sentences with an idiom word")
    options = parser.parse_args()
    if not options.code:
        files = options.files or [path for pattern in PROSE for path in sorted(ROOT.glob(pattern))]
        table({str(path).removeprefix(f"{ROOT}/"): sentences(path.read_text()) for path in files})
        return
    rows: dict[str, list[str]] = {}
    for path in options.files or [
        path for folder in CODE for path in sorted((ROOT / folder).rglob("*")) if path.suffix in (".py", ".j2")
    ]:
        name = str(path).removeprefix(f"{ROOT}/")
        for kind, line, each in code_sentences(path):
            rows.setdefault(f"{name if options.files else Path(name).parent} {kind}s", []).append(each)
            if options.idiom and IDIOM.search(each):
                print(f"{name}:{line}: {kind}: {each}")
    if not options.idiom:
        table(dict(sorted(rows.items())))


if __name__ == "__main__":
    main()
