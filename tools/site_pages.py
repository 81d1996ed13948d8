"""Pages of the site that come from outside `docs`, for mkdocs (`hooks` in mkdocs.yml).

README.md and similar files stay in the repository's root, and typer describes the commands. This hook makes pages of
them, and rewrites links between them and the pages of `docs`. A link to a file without a page, such as code, becomes
text.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "deploy/README.md": "deploy.md",
    "docker/README.md": "docker.md",
    "docs/decisions": "decisions/index.md",
}
"""Files and folders of the repository -> pages of the site; all of `docs` keeps its name."""
NAMED = re.compile(r"!?\[([^\]]*)\]\((?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages."""
    for source, page in PAGES.items():
        if source.endswith(".md"):
            files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, "decisions/index.md", content=_decisions()))
    files.append(File.generated(config, "cli.md", content=_commands()))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """The page with its links as the site has them."""
    sources = {page: source for source, page in PAGES.items()}
    own = page.file.src_uri
    here = PurePosixPath(sources.get(own, f"docs/{own}")).parent
    known = {file.src_uri for file in files}

    def written(found: re.Match[str]) -> str:
        text, target, anchor = found.group(1), found.group(2), found.group(3) or ""
        place = os.path.normpath(here / target)
        goal = PAGES.get(place, place.removeprefix("docs/"))
        if goal not in known:
            if not (ROOT / place).exists():
                return found.group(0)  # no such file: mkdocs reports it
            if text.strip("`/") == place.rstrip("/"):
                return f"`{place}`"
            return text if text.startswith("`") else f"{text} (`{place}`)"
        image = "!" if found.group(0).startswith("!") else ""
        return f"{image}[{text}]({os.path.relpath(goal, PurePosixPath(own).parent)}{anchor})"

    return NAMED.sub(written, markdown)


def _decisions() -> str:
    """A list of the decisions by their titles."""
    lines = ["# Decisions", ""]
    for path in sorted((ROOT / "docs/decisions").glob("*.md")):
        title = path.read_text().partition("\n")[0].removeprefix("#").strip()
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"


def _commands() -> str:
    """The text of `exact --help` and of each command's help."""
    command = [sys.executable, "-m", "typer", "exact_kubeflow.cli.app", "utils", "docs", "--name", "exact"]
    done = subprocess.run([*command, "--title", "Commands"], cwd=ROOT, capture_output=True, text=True, check=True)
    # typer cuts the summaries of the list short: each gets the first sentence of its command's own section.
    first = dict(re.findall(r"^#+ `exact ([^`]+)`\n\n([^\n]+?(?:\.(?= |\n)|\n))", done.stdout, flags=re.MULTILINE))
    group, lines = "", []
    for line in done.stdout.splitlines():
        if heading := re.match(r"#+ `exact ([^`]+)`", line):
            group = f"{heading[1]} "
        entry = re.match(r"\* `([a-z-]+)`: .*\.\.\.$", line)
        lines.append(f"* `{entry[1]}`: {first[group + entry[1]].strip()}" if entry else line)
    return "\n".join(lines) + "\n"
