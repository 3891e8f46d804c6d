"""The documentation: links resolve, commands compose, quoted messages exist."""

import ast
import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from core.composed import compose_config
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)|(?:src|srcset)=\"([^\"]+)\"")
COMMAND = re.compile(r"^\$ (?:\w+=\S+ )*(?:python|torchrun.*) train\.py(.*)$", re.MULTILINE)
MESSAGE = re.compile(r"^\| (`.*`).* \| .* \|$", re.MULTILINE)
PLACES = ("core", "data", "deploy", "models", "objectives", "optim", "study", "analysis", "trainer")
GITHUB = "../../actions/"  # relative to the address of the repository
# placeholders, and names that the examples add
NOT_HERE = re.compile(
    r"\.\.\.|<|tinymlp|signsgd|halving|densenet|squares|margin|overconfident|csv_file"
)


def name(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page):
    for groups in LINK.findall(page.read_text()):
        target = "".join(groups)
        assert "://" in target or target.startswith(GITHUB) or (page.parent / target).exists(), (
            target
        )


def commands() -> list[str]:
    """The overrides after ``train.py`` in the pages; commands with placeholders are left out."""
    text = "\n".join(page.read_text().replace("\\\n", " ") for page in PAGES)
    found = dict.fromkeys(line.strip() for line in COMMAND.findall(text))
    return [line for line in found if not NOT_HERE.search(line)]


@pytest.mark.filterwarnings(r"ignore:\s*'hydra/launcher")
@pytest.mark.parametrize("line", commands())
def test_commands_compose(line):
    arguments = shlex.split(line, comments=True)
    if {"--help", "--cfg"} & set(arguments):
        return
    typed = [argument for argument in arguments if argument != "-m"]
    chosen = []
    for override in OverridesParser.create().parse_overrides(typed):
        first = next(override.sweep_string_iterator()) if override.is_sweep_override() else None
        key = override.get_key_element()
        chosen.append(f"{key}={first}" if first is not None else override.input_line)
    compose_config(chosen, with_hydra=True)


def texts_of_the_program() -> str:
    """All string constants of the program; the parts of an f-string are joined by …."""
    found = []
    for file in [*ROOT.glob("*.py"), *(f for p in PLACES for f in (ROOT / p).rglob("*.py"))]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_quoted_messages_exist():
    program = texts_of_the_program()
    page = (ROOT / "docs" / "reference" / "troubleshooting.md").read_text()
    messages = re.findall(r"`([^`]+)`", "\n".join(MESSAGE.findall(page)))
    assert len(messages) > 30
    parts = [part.strip(" ;:") for message in messages for part in message.split("…")]
    assert [part for part in parts if part not in program] == []


def test_named_tests_exist():
    """Pages refer to tests as ``tests/file.py`` or ``tests/file.py::test``."""
    text = "\n".join(page.read_text() for page in PAGES)
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 15
    for file, test in named:
        code = (ROOT / file).read_text()
        assert (f"def {test}(" if test else "def test_") in code, f"{file}::{test}"
