"""Optimizers take the same steps without importing the compiler."""

import json
import subprocess
import sys

from tests.conftest import ROOT

UPDATES = """
import json, os, sys, torch
from torch import nn
from optim.uncompiled import leave_compiler_out

def trained_weights(name):
    torch.manual_seed(0)
    layer = nn.Linear(3, 4)
    optimizer = getattr(torch.optim, name)(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    return layer.weight.tolist()

is_child = os.fork() == 0  # the child uses torch unpatched
if not is_child:
    os.wait()
    leave_compiler_out()
names = ("SGD", "Adam", "AdamW", "RMSprop", "NAdam", "RAdam", "Adafactor")
weights = [trained_weights(name) for name in names]
print(json.dumps([weights, "torch._dynamo" in sys.modules]))
"""


def test_updates_are_equal_without_the_compiler():
    """Both variants run in subprocesses, since an import cannot be undone."""
    done = subprocess.run(
        [sys.executable, "-c", UPDATES], cwd=ROOT, capture_output=True, check=True
    )
    plain, patched = map(json.loads, done.stdout.splitlines())
    assert patched[0] == plain[0]
    assert (plain[1], patched[1]) == (True, False)
