"""Optimizers whose update synchronizes with the GPU; docs/scale/gpu.md lists them."""

import pytest
import torch
from torch import nn

from optim.build import build_optimizer
from optim.needs import Needs, rehearse
from tests.conftest import ROOT
from tests.optim.test_optimizers import GROUPING, NAMES
from tests.trainer.test_host_reads import READS, Reads

# their libraries read a value back to the host
SYNCHRONIZING = {"adafactor", "dadapt_adam", "kron", "lamb", "prodigy"}
ALTERNATIVES = ("AdaFactor", "Lamb")  # of pytorch_optimizer, recommended by the page
CPU_STATE = ("step", "mu_product")  # torch keeps it on the CPU, whatever the device
OPTIONS = [name for name in NAMES if name not in ("timm", "pytorch_optimizer")]


class DeviceReads(Reads):
    """Counts reads of tensors that would be on the GPU."""

    def __init__(self, optimizer):
        super().__init__()
        states = optimizer.state_dict()["state"].values()
        self.on_cpu = [s[name] for s in states for name in CPU_STATE if name in s]

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.__name__.partition(".")[0] in READS:
            self.count += not any(args[0] is tensor for tensor in self.on_cpu)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", [*OPTIONS, *ALTERNATIVES])
def test_only_listed_optimizers_synchronize(name, composed):
    overrides = [f"optimizer={name}"]
    if name in ALTERNATIVES:
        overrides = ["optimizer=pytorch_optimizer", f"optimizer.name={name}"]
    settings = composed(*overrides)["optimizer"]
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 4))
    optimizer = build_optimizer(settings, network, GROUPING)
    needs = rehearse(settings, optimizer, "optimizer", network)
    if needs != Needs(draws=name in ("kron", "shampoo")):
        pytest.skip("needs a closure or second derivatives")
    if hasattr(optimizer, "train"):
        optimizer.train()
    for _ in range(3):  # the first creates the state
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        with DeviceReads(optimizer) as reads:
            optimizer.step()
    assert (reads.count > 0) == (name in SYNCHRONIZING)


def test_gpu_page_lists_synchronizing_optimizers():
    page = (ROOT / "docs" / "scale" / "gpu.md").read_text()
    assert {name for name in OPTIONS if f"`{name}`" in page} == SYNCHRONIZING
