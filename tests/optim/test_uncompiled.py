"""Optimizers do not import the compiler, and step as they do with it."""

import json
import subprocess
import sys

from tests.conftest import ROOT

UPDATES = """
import json, sys, torch
from torch import nn
from optim.uncompiled import leave_compiler_out

def trained(name):
    torch.manual_seed(0)
    layer = nn.Linear(3, 4)
    optimizer = getattr(torch.optim, name)(layer.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    return layer.weight.tolist()

if sys.argv[1] == "without":
    leave_compiler_out()
names = ("SGD", "Adam", "AdamW", "RMSprop", "NAdam", "RAdam", "Adafactor")
weights = [trained(name) for name in names]
print(json.dumps([weights, "torch._dynamo" in sys.modules]))
"""


def test_same_updates_without_the_import():
    """In processes of their own: an import cannot be undone."""
    outcomes = {}
    for how in ("with", "without"):
        done = subprocess.run(
            [sys.executable, "-c", UPDATES, how], cwd=ROOT, capture_output=True, check=True
        )
        outcomes[how] = json.loads(done.stdout)
    assert outcomes["without"][0] == outcomes["with"][0]
    assert [outcomes[how][1] for how in ("with", "without")] == [True, False]
