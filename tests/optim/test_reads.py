"""Which optimizers make a GPU wait in an update; docs/scale/gpu.md lists them."""

import pytest
import torch
from torch import nn

from optim.build import build_optimizer
from optim.needs import Needs, rehearse
from tests.conftest import ROOT
from tests.optim.test_optimizers import GROUPING, NAMES
from tests.trainer.test_host_reads import READS, Reads

# a value is read by the library's own code
WAITS = {"adafactor", "dadapt_adam", "kron", "lamb", "prodigy"}
INSTEAD = ("AdaFactor", "Lamb")  # pytorch_optimizer's, which the page names in place of two of them
ON_THE_CPU = ("step", "mu_product")  # state that torch keeps there, on every device
NAMED = [name for name in NAMES if name not in ("timm", "pytorch_optimizer")]


class DeviceReads(Reads):
    """Reads of what would be on the device."""

    def __init__(self, optimizer):
        super().__init__()
        states = optimizer.state_dict()["state"].values()
        self.free = [s[name] for s in states for name in ON_THE_CPU if name in s]

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.__name__.partition(".")[0] in READS:
            self.count += not any(args[0] is tensor for tensor in self.free)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [*NAMED, *INSTEAD])
def test_an_update_reads_nothing(name, composed):
    overrides = [f"optimizer={name}"]
    if name in INSTEAD:
        overrides = ["optimizer=pytorch_optimizer", f"optimizer.name={name}"]
    settings = composed(*overrides)["optimizer"]
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 4))
    optimizer = build_optimizer(settings, network, GROUPING)
    needs = rehearse(settings, optimizer, "optimizer", network)
    if needs != Needs(draws=name in ("kron", "shampoo")):
        pytest.skip("steps by a closure or second derivatives, which are its own business")
    if hasattr(optimizer, "train"):
        optimizer.train()
    for _ in range(3):  # state is made by the first
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        with DeviceReads(optimizer) as reads:
            optimizer.step()
    assert (reads.count > 0) == (name in WAITS)


def test_the_page_lists_them():
    page = (ROOT / "docs" / "scale" / "gpu.md").read_text()
    assert {name for name in NAMED if f"`{name}`" in page} == WAITS
