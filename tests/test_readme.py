"""The README's extensions, followed to the letter in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("train.py", "conf", "core", "models", "data", "optim", "objectives", "trainer")
EXTEND = (ROOT / "README.md").read_text().split("## Extend")[1].split("\n## ")[0]
QUICK = ("debug=fast", "wandb.mode=disabled")
FILE = re.compile(r"`([\w/]+\.(?:py|yaml))`\n\n```\w+\n(.*?)```", re.DOTALL)
COMMAND = re.compile(r"^\$ python (train\.py .*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the project with every file that the README adds."""
    project = tmp_path_factory.mktemp("project")
    for room in ROOMS:
        source = ROOT / room
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, project / room)
    for name, content in FILE.findall(EXTEND):
        assert not (project / name).exists()
        (project / name).write_text(content)
    return project


def test_readme_adds_a_model_an_optimizer_a_schedule_and_a_data_set():
    files = [name for name, _ in FILE.findall(EXTEND)]
    assert [name.split("/")[0] for name in files[::2]] == ["models", "optim", "optim", "data"]
    assert all(name.startswith("conf/") for name in files[1::2])
    assert len(COMMAND.findall(EXTEND)) == 4


@pytest.mark.parametrize("line", COMMAND.findall(EXTEND))
def test_command_works(line, extended, data_root):
    done = subprocess.run(
        [sys.executable, *line.split(), *QUICK, f"data.root={data_root}"],
        cwd=extended,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "test/accuracy" in done.stdout
