"""Every package that the program imports is listed in a requirements file."""

import ast
import re
import sys
from importlib.metadata import packages_distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

OWN = {path.stem for path in ROOT.iterdir()} | {"hydra_plugins"}
NOT_OURS = ("tests", "benchmarks", "docs", ".venv", "notebooks")


def imported_packages() -> set[str]:
    """Top-level names of all packages that the program imports."""
    names: set[str] = set()
    for file in ROOT.rglob("*.py"):
        if file.relative_to(ROOT).parts[0] in NOT_OURS:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - OWN - set(sys.stdlib_module_names)


def required_distributions() -> set[str]:
    lines = [
        line for file in ROOT.glob("requirements*.txt") for line in file.read_text().splitlines()
    ]
    found = (re.match(r"[\w.-]+", line) for line in lines)
    return {canonicalize_name(match[0]) for match in found if match}


def test_imports_are_required():
    distributions = packages_distributions()
    required = required_distributions()
    missing = {
        name
        for name in imported_packages()
        if not {canonicalize_name(d) for d in distributions.get(name, [name])} & required
    }
    assert missing == set()


def test_lock_names_a_version_for_every_requirement():
    lock = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "requirements.lock").read_text(), re.M))
    for file in ("requirements.txt", "requirements-joblib.txt"):
        for line in (ROOT / file).read_text().splitlines():
            requirement = Requirement(line.partition("#")[0])
            assert requirement.specifier.contains(lock[canonicalize_name(requirement.name)]), line
