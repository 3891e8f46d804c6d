"""The program's structure, from its source: imports point downwards, no library is patched."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
# every folder may import from itself and from those to its right
ORDER = (
    ("train", "predict", "report", "hydra_plugins"),
    ("study", "deploy", "analysis"),
    ("trainer",),
    ("objectives",),
    ("metrics",),
    ("data",),
    ("models", "optim"),
    ("core",),
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
PRIVATE = re.compile(
    r"\bsys\.modules\[|__globals__|__code__|__wrapped__|\bctypes\b|os\._exit"
    r"|\b(?:torch|dist|nn|hydra|wandb|omegaconf|timm|optuna|plt|np|pd)(?:\.\w+)*\._(?!target_)[a-z]"
    r"|(?:from|import) (?:torch|hydra|wandb|omegaconf|timm|optuna)[\w.]*\._"
    r"|\bsetattr\(|\.__(?!class__)[a-z]\w* = "
)
# at most three, each for a measured reason
ALLOWED = {
    "optim/uncompiled.py": "importing the compiler takes a second of every start",
    "trainer/distributed/device.py": "malloc that keeps freed memory: up to a third of an update",
}


FILES = [*ROOT.glob("*.py"), *(f for name in LEVEL for f in (ROOT / name).rglob("*.py"))]
SOURCES = {file.relative_to(ROOT).as_posix(): file.read_text() for file in FILES}
MODULES = {name: name.removesuffix(".py").replace("/", ".") for name in SOURCES}


def imports_of(source):
    """The project's modules that a file imports, including imports inside functions."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        else:
            continue
        yield from (module for module in names if module in MODULES.values())


GRAPH = {MODULES[name]: set(imports_of(source)) for name, source in SOURCES.items()}


def test_there_are_no_circular_imports():
    try:
        list(TopologicalSorter(GRAPH).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_imports_point_downwards():
    upwards = [
        f"{module} imports {imported}"
        for module, imports in GRAPH.items()
        for imported in sorted(imports)
        if (own := module.split(".")[0]) != (other := imported.split(".")[0])
        and LEVEL[own] >= LEVEL[other]
    ]
    assert upwards == []


def test_no_private_part_of_a_library_is_used():
    found = {name for name, source in SOURCES.items() if PRIVATE.search(source)}
    assert found == set(ALLOWED)
