"""Pages of the site that are written elsewhere, for mkdocs (`hooks` in mkdocs.yml).

README.md and its like stay where a reader of the repository looks for them, and the commands describe themselves
(typer). Here they become pages, and links between them and those of `docs` are written anew; what a page says of a file
that is no page, as of code, stays as text.
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
                return found.group(0)  # leads nowhere: mkdocs says so
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
    """What `exact --help` and that of each command say."""
    command = [sys.executable, "-m", "typer", "exact_kubeflow.cli.app", "utils", "docs", "--name", "exact"]
    done = subprocess.run([*command, "--title", "Commands"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout
