"""The plan of the house, read from the imports of the library and the nodes."""

import ast
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# From the ground up. A room imports from its own floor and from those below; `maskinversion` is what `import maskinversion` gives.
FLOORS = (
    ("errors",),
    ("settings", "files", "pickles", "lock"),
    ("geometry", "pictures", "compute", "packages"),
    ("bundled",),
    ("explain",),
    ("models",),
    ("inverter", "starts", "tokens", "operations", "identity", "hidden_states", "maskinversion"),
    ("drawing", "datasets"),
    ("tasks",),
    ("evaluation", "bench", "collection"),
    ("cli", "__main__"),
    ("nodes",),
)
ROOMS = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
COMFYUI = ("comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "nodes", "execution")
LONGEST = 400


@dataclass(frozen=True)
class Import:
    """Of `target` by `module`, both by their dotted names from the root. relative: written with dots."""

    module: str
    target: str
    line: int
    for_types_only: bool
    relative: bool

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}, imports {self.target}"


def modules(root: Path) -> dict[str, Path]:
    """Every module of the library and the nodes by its dotted name; a package by the name of its folder."""
    files = [path for folder in ("maskinversion", "nodes") for path in sorted((root / folder).rglob("*.py"))]
    return {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imports(root: Path) -> list[Import]:
    """Every import, also those inside of functions; of names from a package, the modules among them."""
    known = modules(root)
    found = []
    for module, path in known.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        checking = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
        for_types = {inner for node in checking for statement in node.body for inner in ast.walk(statement)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets, relative = [alias.name for alias in node.names], False
            elif isinstance(node, ast.ImportFrom):
                relative = node.level > 0
                above = package[: len(package) - node.level + 1] if relative else []
                source = ".".join([*above, *([node.module] if node.module else [])])
                submodules = [f"{source}.{alias.name}" if source else alias.name for alias in node.names]
                targets = [name if name in known else source for name in submodules]
            else:
                continue
            found += [Import(module, target, node.lineno, node in for_types, relative) for target in dict.fromkeys(targets)]
    return found


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "maskinversion" and len(parts) > 1 else parts[0]


def is_ours(target: str) -> bool:
    return target.split(".")[0] in ("maskinversion", "nodes")


def upward(root: Path) -> list[str]:
    """Imports from a higher floor; drawing, which any program may use alone, has the errors only."""
    ours = [found for found in imports(root) if is_ours(found.target)]
    rooms = [(room_of(found.module), room_of(found.target), found) for found in ours]
    high = [str(found) for source, target, found in rooms if ROOMS[source] < ROOMS[target]]
    return high + [str(found) for source, target, found in rooms if source == "drawing" and target not in ("drawing", "errors")]


def circle(root: Path) -> list[str]:
    """The modules of an import circle, the first of them again at the end; [] when there is none."""
    graph: dict[str, set[str]] = {}
    for found in imports(root):
        if is_ours(found.target) and not found.for_types_only:
            graph.setdefault(found.module, set()).add(found.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def foreign(root: Path) -> list[str]:
    """ComfyUI's modules in the library; and the library by its name in the nodes, where ComfyUI may not find it or find another."""
    found = []
    for one in imports(root):
        name, in_library = one.target.split(".")[0], one.module.split(".")[0] == "maskinversion"
        if (in_library and name in COMFYUI) or (not in_library and name == "maskinversion" and not one.relative):
            found.append(str(one))
    return found


def too_long(root: Path) -> list[str]:
    """Modules of more than LONGEST lines, schemas of nodes not counted."""
    found = []
    for module, path in modules(root).items():
        text = path.read_text(encoding="utf-8")
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        schemas = [node for node in functions if node.name == "define_schema" and module.startswith("nodes")]
        lines = len(text.splitlines()) - sum(node.end_lineno - node.lineno for node in schemas)
        if lines > LONGEST:
            found.append(f"{module} has {lines} lines")
    return found


def unexplained(root: Path) -> list[str]:
    """Packages that do not say what is in them."""
    folders = sorted({path.parent for path in modules(root).values()})
    found = []
    for folder in folders:
        init = folder / "__init__.py"
        if not init.is_file() or not ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))):
            found.append(folder.relative_to(root).as_posix())
    return found


def test_every_module_has_its_floor():
    assert {room_of(module) for module in modules(ROOT)} <= ROOMS.keys()


def test_nothing_imports_from_a_higher_floor():
    assert not upward(ROOT)


def test_no_import_goes_in_a_circle():
    assert not circle(ROOT)


def test_the_library_knows_nothing_of_comfyui_and_the_nodes_have_it_from_beside_them():
    assert not foreign(ROOT)


def test_no_module_is_too_long():
    assert not too_long(ROOT)


def test_every_package_says_what_is_in_it():
    assert not unexplained(ROOT)


GOOD = {
    "maskinversion/__init__.py": '"""The library."""\nfrom .inverter import invert\n',
    "maskinversion/errors.py": "",
    "maskinversion/inverter.py": "from . import errors\nfrom .explain.base import Map\n",
    "maskinversion/explain/__init__.py": '"""Maps."""\n',
    "maskinversion/explain/base.py": "from ..errors import InputError\n",
    "maskinversion/explain/table.py": "from .base import Map\n",
    "maskinversion/drawing/__init__.py": '"""Pictures of maps."""\nfrom ..errors import InputError\n',
    "nodes/__init__.py": '"""The nodes."""\nfrom .invert import NODES\n',
    "nodes/invert.py": "import comfy.model_management\nfrom ..maskinversion import InputError\n",
}
TYPED = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from {} import {}\n"
SCHEMA = "class Node:\n    def define_schema(cls):\n" + 500 * "        pass\n"


@pytest.mark.parametrize(
    ("changes", "check", "found"),
    [
        ({}, None, None),
        ({"maskinversion/explain/base.py": "from ..inverter import x"}, upward, "maskinversion.inverter"),
        ({"maskinversion/explain/base.py": "from .. import inverter"}, upward, "maskinversion.inverter"),
        ({"maskinversion/explain/base.py": "from maskinversion import inverter"}, upward, "maskinversion.inverter"),
        ({"maskinversion/explain/base.py": "from .. import x"}, upward, "imports maskinversion"),
        ({"maskinversion/explain/base.py": "def f():\n    import maskinversion.tasks"}, upward, "maskinversion.tasks"),
        ({"maskinversion/explain/base.py": TYPED.format("..inverter", "x")}, upward, "maskinversion.inverter"),
        ({"maskinversion/errors.py": "from ..nodes import invert"}, upward, "nodes.invert"),
        ({"maskinversion/drawing/__init__.py": '"""."""\nfrom .. import geometry'}, upward, "imports maskinversion"),
        ({"maskinversion/explain/base.py": "def f():\n    from .table import x"}, circle, "maskinversion.explain.table"),
        ({"maskinversion/explain/base.py": TYPED.format(".table", "x")}, None, None),
        ({"maskinversion/errors.py": "import comfy.utils"}, foreign, "comfy.utils"),
        ({"maskinversion/errors.py": "from folder_paths import x"}, foreign, "folder_paths"),
        ({"nodes/invert.py": "from maskinversion import x"}, foreign, "maskinversion"),
        ({"nodes/invert.py": SCHEMA}, None, None),
        ({"maskinversion/errors.py": SCHEMA}, too_long, "maskinversion.errors"),
        ({"maskinversion/explain/__init__.py": ""}, unexplained, "maskinversion/explain"),
        ({"maskinversion/tasks/classify.py": ""}, unexplained, "maskinversion/tasks"),
    ],
)
def test_what_is_against_the_plan_is_found(changes, check, found, tmp_path):
    for name, text in (GOOD | changes).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if check:
        assert any(found in line for line in check(tmp_path))
    else:
        assert not any(each(tmp_path) for each in (upward, circle, foreign, too_long, unexplained))
