"""torch's libraries are loaded early, where that is of use; torch works all the same."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is loaded early")
SCRIPT = """
import sys, threading
from pathlib import Path
from trainer import torch_libraries
torch_libraries.load_early()
(thread,) = [t for t in threading.enumerate() if t is not threading.main_thread()]
thread.join()
assert "torch" not in sys.modules
assert "libtorch_cpu" in Path("/proc/self/maps").read_text()
import torch
a = torch.randn(8, 8)
assert torch.allclose(torch.linalg.inv(a) @ a, torch.eye(8), atol=1e-3)
"""
NONE = """
from trainer import torch_libraries
torch_libraries.find_spec = lambda name: None
torch_libraries.load()
"""


@pytest.mark.parametrize("script", [SCRIPT, NONE])
def test_loading(script):
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
