"""Temporary folders, also those of a killed process."""

import subprocess
import sys
import tempfile
from pathlib import Path

from core.temporary import temporary_folder
from tests.conftest import ROOT

KILLED = """
import os
from core.temporary import temporary_folder
with temporary_folder() as folder:
    open(f"{folder}/file", "w").close()
    os.kill(os.getpid(), 9)
"""


def test_the_next_start_removes_folders_of_killed_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, check=False)
    (left,) = tmp_path.iterdir()
    (tmp_path / "somebody_else_s").mkdir()
    with temporary_folder() as first, temporary_folder() as second:
        assert not left.exists()
        assert Path(first).is_dir()
        assert Path(second).is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["somebody_else_s"]
