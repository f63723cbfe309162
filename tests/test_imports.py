"""Imports point one way: from commands down to the core modules, never in a circle.

    python tests/test_imports.py [CHECKOUT]

prints which room imports which, with the number of imports, of this checkout or
another one.
"""

import ast
import collections
import pathlib
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

CORE = ("modeling", "optimization", "lamb_optimizer", "tokenization")
# From the bottom up; rooms of one level do not know each other. `albert_zh` holds what
# commands share: command_line and flags.
LEVELS = (
    CORE,
    ("base",),
    ("data", "models"),
    ("training",),
    ("tasks", "interop", "downloads", "engines"),
    ("serving",),
    ("albert_zh",),
    ("commands",),
)
_LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# What the core modules may import besides the standard library: modeling.py is copied
# into other projects alone.
OUTSIDE = {
    "modeling": {"numpy", "tensorflow"},
    "lamb_optimizer": {"tensorflow"},
    "optimization": {"tensorflow", "lamb_optimizer"},
    "tokenization": {"numpy", "sentencepiece", "tensorflow"},
}


def module_files(root):
    """Returns dict module name -> path, of the package and the top-level scripts."""
    paths = sorted(root.glob("*.py")) + sorted((root / "albert_zh").rglob("*.py"))
    names = {}
    for path in paths:
        parts = path.relative_to(root).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def room_of(module):
    """Returns the room of a module: a folder of the package, a core module..."""
    parts = module.split(".")
    if parts[0] != "albert_zh":
        return module if module in CORE else "commands"
    if len(parts) == 1:
        return "albert_zh"
    return parts[1] if len(parts) > 2 or parts[-1] in _LEVEL else "albert_zh"


def imported(path):
    """Returns the list of the names that a file imports, as dotted paths."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "{} has a relative import".format(path)
            names += ["{}.{}".format(node.module, a.name) for a in node.names]
    return names


def arrows(root):
    """Returns the set of (module, module it imports) within a checkout."""
    modules, found = module_files(root), set()
    for module, path in modules.items():
        for name in imported(path):
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if name and name != module:
                found.add((module, name))
    return found


def test_no_import_points_up_or_sideways():
    wrong = []
    for source, target in arrows(REPOSITORY):
        above, below = room_of(source), room_of(target)
        if above != below and _LEVEL[above] <= _LEVEL[below]:
            # The core modules build on each other.
            if not {above, below} <= set(CORE):
                wrong.append("{} imports {}".format(source, target))
    assert not wrong


def test_commands_do_not_import_each_other():
    assert not [
        arrow
        for arrow in arrows(REPOSITORY)
        if set(map(room_of, arrow)) == {"commands"}
    ]


def test_no_imports_go_round_in_a_circle():
    targets = collections.defaultdict(set)
    for source, target in arrows(REPOSITORY):
        targets[source].add(target)
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join(path + [module])
        if module in done:
            return
        path.append(module)
        for target in sorted(targets[module]):
            # A package stands for its __init__ only, which its modules may import.
            if not module.startswith(target + "."):
                visit(target)
        path.pop()
        done.add(module)

    for module in module_files(REPOSITORY):
        visit(module)


@pytest.mark.parametrize("module", CORE)
def test_core_modules_stand_alone(module):
    names = {name.split(".")[0] for name in imported(REPOSITORY / (module + ".py"))}
    standard = getattr(sys, "stdlib_module_names", None)
    if standard is None:
        pytest.skip("this Python does not list its standard library")
    assert names - set(standard) <= OUTSIDE[module]


def test_every_room_has_a_level_and_a_sentence():
    for folder in (REPOSITORY / "albert_zh").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert folder.name in _LEVEL
            text = (folder / "__init__.py").read_text(encoding="utf-8")
            assert ast.get_docstring(ast.parse(text))


def count_imports(root):
    """Returns a `Counter` of (room, room it imports)."""
    return collections.Counter(
        (room_of(source), room_of(target)) for source, target in arrows(root)
    )


@pytest.mark.parametrize("page", ["architecture.md", "architecture_en.md"])
def test_the_map_has_the_numbers_of_today(page):
    counts = count_imports(REPOSITORY)
    lines = (REPOSITORY / "docs" / page).read_text(encoding="utf-8").splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| `")]
    rows = [[cell.strip(" `") for cell in row] for row in rows]
    rows = {row[0]: row[1:] for row in rows if len(row) == 7}
    columns = ["base", "data", "models", "training", "tasks"]
    rooms = columns + ["interop", "downloads", "engines", "serving"]
    assert rows == {
        room: [
            "-" if column == room else str(counts[room, column]) for column in columns
        ]
        + [str(counts[room, room])]
        for room in rooms
    }


def main():
    """Prints the number of imports from room to room."""
    root = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY
    counts = count_imports(root)
    for (source, target), count in sorted(counts.items()):
        sys.stdout.write("{:<16} -> {:<16} {:>3}\n".format(source, target, count))


if __name__ == "__main__":
    main()
