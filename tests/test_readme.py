"""The README: its examples of extensions and its commands work, and its table is complete."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("train.py", "conf", "core", "models", "data", "optim", "objectives", "metrics", "study",
            "trainer")  # fmt: skip
README = (ROOT / "README.md").read_text()
EXTEND = README.split("## Extend")[1].split("\n## ")[0]
EXTEND += (ROOT / "docs" / "train" / "extend.md").read_text()
QUICK = ("debug=fast", "wandb.mode=disabled")
FILE = re.compile(r"`([\w/]+\.(?:py|yaml))`\n\n```\w+\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"^\$ python (train\.py .*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the project with every file that the README tells a user to add."""
    project = tmp_path_factory.mktemp("project")
    for package in PACKAGES:
        source = ROOT / package
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, project / package)
    for name, content in FILE.findall(EXTEND):
        assert not (project / name).exists()
        (project / name).write_text(content)
    return project


def test_table_names_every_option_of_every_group():
    rows = dict(re.findall(r"^\| `([\w/]+)` \| (.*) \|$", README, re.MULTILINE))
    shown = {group: re.sub(r" \([^)]*\)", "", names).split(", ") for group, names in rows.items()}
    folders = [f for f in (ROOT / "conf").iterdir() if f.is_dir() and f.name != "hydra"]
    folders.append(ROOT / "conf" / "hydra" / "launcher")
    options = {
        folder.relative_to(ROOT / "conf").as_posix(): sorted(
            file.stem for file in folder.glob("*.yaml") if not file.name.startswith("_")
        )
        for folder in folders
    }
    assert shown == options


def test_there_is_a_short_example_of_each_kind():
    files = [name for name, _ in FILE.findall(EXTEND) if not name.startswith("conf/")]
    folders = ["models", "optim", "optim", "models", "data", "objectives", "objectives", "trainer"]
    assert [name.split("/")[0] for name in files] == folders
    assert all(content.count("\n") <= 25 for _, content in FILE.findall(EXTEND))
    assert len(COMMAND.findall(EXTEND)) == len(files)


RUN = """
import runpy, sys
for line in sys.stdin:
    sys.argv = line.split()
    try:
        runpy.run_path("train.py", run_name="__main__")
    except SystemExit as end:
        assert end.code == 0, line
"""


def test_commands_work(extended, data_root):
    """They run in one process, one after the other."""
    lines = [[*line.split(), *QUICK, f"data.root={data_root}"] for line in COMMAND.findall(EXTEND)]
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=extended,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        input="\n".join(" ".join(line) for line in lines),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test/accuracy") == len(lines)
