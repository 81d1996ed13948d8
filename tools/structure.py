"""The structure of the code, measured from its imports: rooms, arrows between them, circles, long functions, comments.

    python tools/structure.py [TREE]           # prints the measures of a tree (default: this one)
    python tools/structure.py --check [TREE]   # also fails where a bound of ours is broken; part of `make check`

A room is a folder with Python files of the library or of what runs it; a module at the root of a package is a room of
its own. An arrow is a pair of rooms of which the first imports the second. A circle is a set of modules, or of rooms,
each of which reaches each other by imports, those within functions included; what only annotates (`if TYPE_CHECKING`)
is no import. Only the standard library is used, and nothing of the tree is run.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("exact_core", "exact_kubeflow", "components", "pipelines")
"""Folders at the root with the code that is installed."""
INSTALLED = {"components": "exact_kubeflow.components", "pipelines": "exact_kubeflow.pipelines"}
"""Folders that are installed under another name (pyproject.toml, package-dir)."""
NUMERIC = {
    "models/sequences.py": ("models/sequences.py",),
    "models/cpu_block.py": ("models/cpu_block.py",),
    "data/season/strips.py": ("data/season/strips.py", "data/strips.py"),
    "mapping/rows.py": ("mapping/rows.py",),
}
"""Files of exact_core whose comments are counted, and the names that they had before."""
STAGE_LINES = 60
"""A function of a stage is shorter than this: it reads as the steps that it takes."""

Graph = dict[str, set[str]]


@dataclass(frozen=True)
class Module:
    """One Python file."""

    path: Path
    name: str
    """As it is imported."""
    tree: ast.Module

    @property
    def room(self) -> str:
        """The folder that it stands in, or the module itself at the root of a package."""
        if self.path.name == "__init__.py":
            return self.name
        package = self.name.rpartition(".")[0]
        return self.name if package in ("exact_core", "exact_kubeflow") else package


def modules_of(root: Path) -> dict[str, Module]:
    """The modules of a tree by the names that they are imported by."""
    project = root / "pyproject.toml"
    renamed = INSTALLED if project.is_file() and "package-dir" in project.read_text(encoding="utf-8") else {}
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            parts = (*renamed.get(parts[0], parts[0]).split("."), *parts[1:])
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = Module(path, name, ast.parse(path.read_text(encoding="utf-8")))
    return found


def imports_of(module: Module, names: set[str]) -> Iterator[str]:
    """Modules among `names` that a module imports."""

    def visit(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module and not child.level:
                # A name may be a module of the package, or something that the package's face hands on.
                for alias in child.names:
                    whole = f"{child.module}.{alias.name}"
                    yield whole if whole in names else child.module
            yield from visit(child)

    yield from (name for name in visit(module.tree) if name in names and name != module.name)


def graphs(modules: dict[str, Module]) -> tuple[Graph, Graph]:
    """Which module imports which, and which room which."""
    names = set(modules)
    by_module = {name: set(imports_of(module, names)) for name, module in modules.items()}
    rooms: Graph = defaultdict(set)
    for name, targets in by_module.items():
        mine = modules[name].room
        rooms[mine] |= {modules[target].room for target in targets} - {mine}
    return by_module, dict(rooms)


def circles(graph: Graph) -> list[list[str]]:
    """Strongly connected components of more than one node (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            place = stack.index(node)
            if len(stack) - place > 1:
                found.append(sorted(stack[place:]))
            del stack[place:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def exceptions(root: Path) -> list[str]:
    """Imports that the contract in .importlinter lets pass."""
    contract = configparser.ConfigParser()
    contract.read(root / ".importlinter", encoding="utf-8")
    listed = [contract[section].get("ignore_imports", "") for section in contract.sections()]
    return [line.strip() for text in listed for line in text.splitlines() if line.strip()]


def comment_lines(path: Path) -> tuple[int, int]:
    """Lines that hold a comment, directives for tools left out, and all lines of a file."""
    with path.open("rb") as file:
        found = {
            token.start[0]
            for token in tokenize.tokenize(file.readline)
            if token.type == tokenize.COMMENT
            and not token.string.lstrip("# ").startswith(("noqa", "type:", "fmt:", "pragma"))
        }
    return len(found), len(path.read_text(encoding="utf-8").splitlines())


def functions_of(module: Module) -> Iterator[tuple[str, int, int]]:
    """Name, first line and number of lines of each function, decorators left out."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


def measure(root: Path) -> list[str]:
    """Print the measures of a tree; what breaks a bound, a sentence each."""
    modules = modules_of(root)
    if not modules:
        raise SystemExit(f"{root}: none of the folders {', '.join(PACKAGES)}; name the root of the project")
    by_module, by_room = graphs(modules)
    everyone = {module.room for module in modules.values()}
    faults = []
    print(f"modules                     {len(modules)}")
    print(f"rooms                       {len(everyone)}")
    print(f"arrows between rooms        {sum(map(len, by_room.values()))}")
    print(f"imports between modules     {sum(map(len, by_module.values()))}")
    for what, graph in (("modules", by_module), ("rooms", by_room)):
        found = circles(graph)
        print(f"circles of {what:<16} {len(found)}")
        for circle in found:
            print(f"    {', '.join(circle)}")
            faults.append(f"{what} import each other in a circle: {', '.join(circle)}")
    excused = exceptions(root)
    print(f"exceptions in the contract  {len(excused)}")
    faults += [f".importlinter lets an import pass: {line}; move what it needs down instead" for line in excused]
    _functions(root, modules, faults)
    for file, names in NUMERIC.items():
        path = next((root / "exact_core" / name for name in names if (root / "exact_core" / name).is_file()), None)
        if path is not None:
            comments, lines = comment_lines(path)
            share = 100 * comments / lines
            print(f"comments {file:<24} {comments} of {lines} lines, {share:.1f} in a hundred")
    return faults


def _functions(root: Path, modules: dict[str, Module], faults: list[str]) -> None:
    """Print how long functions are."""
    sizes = sorted(size for module in modules.values() for _, _, size in functions_of(module))
    half, most = (sizes[share * (len(sizes) - 1) // 100] if sizes else 0 for share in (50, 95))
    print(f"functions                   {len(sizes)}, lines p50 {half}, p95 {most}")
    long = [
        f"{module.path.relative_to(root)}:{line}: {name} has {size} lines"
        for key, module in modules.items()
        if key.startswith("exact_core.stages.")
        for name, line, size in functions_of(module)
        if size >= STAGE_LINES
    ]
    print(f"long functions of stages    {len(long)}")
    for each in long:
        print(f"    {each}")
        faults.append(f"{each}; a stage's functions are shorter than {STAGE_LINES}: name its steps")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Measures the structure of a tree; see the module's docstring.")
    parser.add_argument("tree", nargs="?", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--check", action="store_true", help="fail where a bound is broken")
    given = parser.parse_args()
    faults = measure(given.tree)
    if given.check and faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
