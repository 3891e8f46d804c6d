"""What matters on a GPU, as far as a machine without one can tell."""

import copy
import gc
import os
import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from core.errors import ConfigError, OutOfMemory
from core.ranks import STORE_FOLDER, Ranks
from core.schema import TrainerSettings
from data.augment import Cutout, HorizontalFlip, RandomAffine, RandomCrop
from data.draws import BatchDraws
from models.recurrent import RecurrentModel
from tests.trainer.test_no_reads import Reads
from trainer import build
from trainer.averaging import Average
from trainer.distributed.device import (
    choose_accelerator,
    choose_device,
    keep_out_of_autocast,
    keep_recurrent_layers_out_of_autocast,
    prepare_process,
)
from trainer.phase import Computation, PhaseCompute


@pytest.fixture
def settings(composed):
    def settings_of(*overrides):
        return TrainerSettings(**composed(*overrides)["trainer"])

    return settings_of


@pytest.fixture
def gpus(monkeypatch):
    """Let this process believe in so many."""

    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)

    return pretend


def test_a_run_on_the_cpu_leaves_the_gpu_alone(settings, monkeypatch):
    def touched(*args, **kwargs):
        raise AssertionError("CUDA was asked")

    for name in ("is_available", "device_count", "set_device", "reset_peak_memory_stats",
                 "manual_seed", "manual_seed_all"):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, touched)
    assert choose_accelerator("cpu") == "cpu"
    prepare_process(settings("trainer.accelerator=cpu"), 0, Ranks(), torch.device("cpu"))


@pytest.mark.parametrize("local_rank", [0, 1])
def test_every_process_of_a_cluster_may_see_one_gpu(settings, gpus, monkeypatch, local_rank):
    gpus(1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    monkeypatch.delenv(STORE_FOLDER, raising=False)
    assert choose_device(settings(), local_rank) == torch.device("cuda", 0)


def test_more_processes_than_gpus_are_refused(settings, gpus, monkeypatch):
    gpus(1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    monkeypatch.setenv(STORE_FOLDER, "/nowhere")  # this program started them: all see the same
    with pytest.raises(ConfigError, match=r"trainer\.devices=2 .* has 1 CUDA"):
        choose_device(settings("trainer.devices=2"), 1)


def test_deterministic_runs_tell_cublas(settings, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: None)
    prepare_process(settings(), 0, Ranks(), torch.device("cpu"))
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with pytest.MonkeyPatch.context() as restored:
        restored.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back
        restored.delenv("CUBLAS_WORKSPACE_CONFIG")
        prepare_process(settings("trainer.deterministic=true"), 0, Ranks(), torch.device("cpu"))
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_job_finds_the_memory_of_the_one_before_it_free(settings, gpus, monkeypatch):
    """Of whatever refers to itself, such as a model with torchmetrics, or an update as a graph."""
    gpus(1)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: None)
    peaks = []

    def reset(device):
        peaks.append(left() is None)

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    gc.disable()
    try:
        model = nn.Linear(2, 2)
        vars(model)["itself"], left = model, weakref.ref(model)
        del model
        prepare_process(settings(), 0, Ranks(), torch.device("cuda", 0))
    finally:
        gc.enable()
    assert peaks == [True]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_compute_outside_of_cudas_autocast(kind):
    """There cuDNN takes fp16, which a run in bf16 scales no loss for."""
    inside = []

    class Seen(kind):
        def forward(self, *args):
            inside.append(torch.is_autocast_enabled("cuda"))
            return super().forward(*args)

    model = nn.Sequential(Seen(4, 4))
    keep_recurrent_layers_out_of_autocast(model, "cuda")
    torch.set_autocast_enabled("cuda", True)
    try:
        for net in (model, copy.deepcopy(model)):
            net(torch.zeros(2, 3, 4))
            with pytest.raises(RuntimeError):
                net(torch.zeros(2, 3, 5))
        assert torch.is_autocast_enabled("cuda")
    finally:
        torch.set_autocast_enabled("cuda", False)
    assert inside == [False] * 4


def test_a_run_keeps_its_recurrent_layers_out_of_autocast(train, monkeypatch):
    kept = []
    monkeypatch.setattr(build, "keep_recurrent_layers_out_of_autocast", lambda *of: kept.append(of))
    small = ("model.width=8", "data.context_length=8", "trainer.limit_eval_steps=1")
    train("model=lstm", *small, "trainer.max_steps=1", "trainer.test=false")
    assert [(type(model), device) for model, device in kept] == [(RecurrentModel, "cpu")]


def test_a_copy_of_a_recurrent_layer_computes_with_its_own_weights():
    model = nn.Sequential(nn.LSTM(4, 4))
    keep_recurrent_layers_out_of_autocast(model, "cuda")
    twin = copy.deepcopy(model)
    for weight in twin.parameters():
        nn.init.zeros_(weight)
    assert not twin(torch.ones(2, 3, 4))[0].any()
    assert model(torch.ones(2, 3, 4))[0].any()


def test_what_a_layer_is_given_under_autocast_has_the_dtype_of_its_weights():
    layer, x, state = nn.LSTM(4, 4), torch.rand(2, 3, 4), torch.rand(1, 3, 4)
    keep_out_of_autocast(layer, "cpu")
    x, state = x.bfloat16(), state.bfloat16()
    expected, _ = layer(x.float(), (state.float(), state.float()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x, hx=(state, state))[0], expected)
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([2, 2, 1]))
        assert layer(packed)[0].data.dtype == torch.float32


def test_the_average_of_a_recurrent_net_lies_in_one_piece(monkeypatch):
    flattened = []
    model = RecurrentModel("lstm", 5, 1, 4)
    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", lambda layer: flattened.append(layer))
    average = Average(model, 0.9)
    assert average.module.layers in flattened


class Copies(TorchDispatchMode):
    """Copies to another device that the host waits for."""

    def __init__(self):
        super().__init__()
        self.made = self.waited = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if "_to_copy" in str(function) and kwargs.get("device") not in (None, args[0].device):
            self.made += 1
            self.waited += not kwargs.get("non_blocking")
        return function(*args, **kwargs)


def test_the_loss_scale_is_read_once_an_update():
    computation = Computation(torch.device("cpu"), "fp16", seed=0, rank=0)
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for is_finite in (True, False, True):
        optimizer.zero_grad()
        computation.scaler.scale(weight.sum() * (1 if is_finite else torch.inf)).backward()
        computation.scaler.step(optimizer)
        with Reads() as reads:
            assert computation.update_scale() == is_finite
    assert reads.count == 1


@pytest.mark.parametrize(
    "augment", [HorizontalFlip(), Cutout(2), RandomAffine()], ids=lambda a: type(a).__name__
)
def test_no_copy_of_draws_is_waited_for(augment):
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8, device="meta")
    with Copies() as copies:
        augment(images, BatchDraws(seed=0, epoch=0, step=0, batch_size=4, low=0, high=4))
    assert copies.made > 0
    assert copies.waited == 0


def test_crops_need_no_copy():
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8, device="meta")
    with Copies() as copies:
        RandomCrop(2)(images, BatchDraws(seed=0, epoch=0, step=0, batch_size=4, low=0, high=4))
    assert copies.made == 0


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate"),
    ],
    ids=["cuda", "cpu"],
)
def test_out_of_memory_is_one_line(train, few_digits, monkeypatch, error):
    def compute(*args):
        raise error

    monkeypatch.setattr(PhaseCompute, "forward", compute)
    with pytest.raises(OutOfMemory, match=r"data\.batch_size=20, .*accumulate_steps=1"):
        train("data.batch_size=20", "trainer.max_steps=1")
