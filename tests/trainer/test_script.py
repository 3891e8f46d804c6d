"""How a script ends: quickly, with its own exit code, with everything said and done."""

import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import QUIET, ROOT
from tests.trainer.interrupting import summary

SCRIPT = """
from trainer import script
script.begin()
import atexit, gc
atexit.register(print, "registered")
class Slow:
    def __del__(self): print("taken apart")
slow = Slow()
assert not gc.isenabled()
def main():
    assert gc.isenabled() and gc.get_freeze_count() > 1000
    print("done")
    return 3
script.run(main)
"""


def run(redirection=""):
    command = f"exec {sys.executable} -c '{SCRIPT}' {redirection}"
    return subprocess.run(
        ["sh", "-c", command],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        capture_output=True,
        text=True,
    )


def test_what_was_registered_happens_and_no_more():
    done = run()
    assert (done.returncode, done.stdout, done.stderr) == (3, "done\nregistered\n", "")


def test_a_closed_output():
    done = run(">&-")
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full disk to try")
def test_a_full_disk():
    """What could not be written is told, by Python's code for it."""
    done = run(">/dev/full")
    assert done.returncode == 120
    assert "No space left on device" in done.stderr


def test_a_reader_that_goes_away():
    """As other programs end then: silently, by the code of SIGPIPE."""
    with subprocess.Popen(
        [sys.executable, "-uc", SCRIPT], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


def test_a_run_whose_reader_goes_away(data_root, tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), *QUIET, "debug=fast"]
    command += [f"data.root={data_root}", f"hydra.run.dir={tmp_path}/run"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert summary(tmp_path / "run")["status"] == "completed"
    assert "Result" in (tmp_path / "run" / "train.log").read_text()
