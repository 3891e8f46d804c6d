"""Behaviour on GPUs, as far as it can be tested without one."""

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
from tests.trainer.test_host_reads import Reads
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
    """Return a function that composes overrides into trainer settings."""

    def settings_of(*overrides):
        return TrainerSettings(**composed(*overrides)["trainer"])

    return settings_of


@pytest.fixture
def fake_gpus(monkeypatch):
    """Return a function that makes torch report a given number of GPUs."""

    def set_count(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)

    return set_count


def test_cpu_run_does_not_touch_cuda(settings, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("CUDA was asked")

    for name in ("is_available", "device_count", "set_device", "reset_peak_memory_stats",
                 "manual_seed", "manual_seed_all"):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, fail)
    assert choose_accelerator("cpu") == "cpu"
    prepare_process(settings("trainer.accelerator=cpu"), 0, Ranks(), torch.device("cpu"))


@pytest.mark.parametrize("local_rank", [0, 1])
def test_cluster_may_show_one_gpu_to_each_process(settings, fake_gpus, monkeypatch, local_rank):
    fake_gpus(1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    monkeypatch.delenv(STORE_FOLDER, raising=False)
    assert choose_device(settings(), local_rank) == torch.device("cuda", 0)


def test_more_processes_than_gpus_are_rejected(settings, fake_gpus, monkeypatch):
    fake_gpus(1)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    monkeypatch.setenv(STORE_FOLDER, "/nowhere")  # started by this program, so all see the same GPU
    with pytest.raises(ConfigError, match=r"trainer\.devices=2 .* has 1 CUDA"):
        choose_device(settings("trainer.devices=2"), 1)


def test_deterministic_run_configures_cublas(settings, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: None)
    prepare_process(settings(), 0, Ranks(), torch.device("cpu"))
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that the original value is restored
        environment.delenv("CUBLAS_WORKSPACE_CONFIG")
        prepare_process(settings("trainer.deterministic=true"), 0, Ranks(), torch.device("cpu"))
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_memory_of_previous_job_is_freed(settings, fake_gpus, monkeypatch):
    """Reference cycles, as in a model with torchmetrics, would wait for the garbage collector."""
    fake_gpus(1)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: None)
    was_freed = []

    def reset(device):
        was_freed.append(model_ref() is None)

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    gc.disable()
    try:
        model = nn.Linear(2, 2)
        vars(model)["itself"], model_ref = model, weakref.ref(model)
        del model
        prepare_process(settings(), 0, Ranks(), torch.device("cuda", 0))
    finally:
        gc.enable()
    assert was_freed == [True]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_run_outside_cuda_autocast(kind):
    """Under autocast cuDNN computes them in fp16, even in a bf16 run, which has no loss scale."""
    autocast_states = []

    class Recorded(kind):
        def forward(self, *args):
            autocast_states.append(torch.is_autocast_enabled("cuda"))
            return super().forward(*args)

    model = nn.Sequential(Recorded(4, 4))
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
    assert autocast_states == [False] * 4


def test_run_disables_autocast_for_recurrent_layers(train, monkeypatch):
    calls = []
    monkeypatch.setattr(
        build, "keep_recurrent_layers_out_of_autocast", lambda *args: calls.append(args)
    )
    small = ("model.width=8", "data.context_length=8", "trainer.limit_eval_steps=1")
    train("model=lstm", *small, "trainer.max_steps=1", "trainer.test=false")
    assert [(type(model), device) for model, device in calls] == [(RecurrentModel, "cpu")]


def test_copied_recurrent_layer_uses_its_own_weights():
    model = nn.Sequential(nn.LSTM(4, 4))
    keep_recurrent_layers_out_of_autocast(model, "cuda")
    twin = copy.deepcopy(model)
    for weight in twin.parameters():
        nn.init.zeros_(weight)
    assert not twin(torch.ones(2, 3, 4))[0].any()
    assert model(torch.ones(2, 3, 4))[0].any()


def test_recurrent_inputs_are_cast_to_dtype_of_weights():
    layer, x, state = nn.LSTM(4, 4), torch.rand(2, 3, 4), torch.rand(1, 3, 4)
    keep_out_of_autocast(layer, "cpu")
    x, state = x.bfloat16(), state.bfloat16()
    expected, _ = layer(x.float(), (state.float(), state.float()))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x, hx=(state, state))[0], expected)
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([2, 2, 1]))
        assert layer(packed)[0].data.dtype == torch.float32


def test_averaged_recurrent_weights_are_flattened(monkeypatch):
    flattened = []
    model = RecurrentModel("lstm", 5, 1, 4)
    monkeypatch.setattr(nn.RNNBase, "flatten_parameters", lambda layer: flattened.append(layer))
    average = Average(model, 0.9)
    assert average.module.layers in flattened


class Copies(TorchDispatchMode):
    """Counts copies to another device, and those for which the host waits."""

    def __init__(self):
        super().__init__()
        self.total = self.blocking = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if "_to_copy" in str(function) and kwargs.get("device") not in (None, args[0].device):
            self.total += 1
            self.blocking += not kwargs.get("non_blocking")
        return function(*args, **kwargs)


def test_loss_scale_is_read_once_per_update():
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
def test_augmentation_copies_do_not_block(augment):
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8, device="meta")
    with Copies() as copies:
        augment(images, BatchDraws(seed=0, epoch=0, step=0, batch_size=4, low=0, high=4))
    assert copies.total > 0
    assert copies.blocking == 0


def test_random_crop_copies_nothing_to_the_device():
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8, device="meta")
    with Copies() as copies:
        RandomCrop(2)(images, BatchDraws(seed=0, epoch=0, step=0, batch_size=4, low=0, high=4))
    assert copies.total == 0


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate"),
    ],
    ids=["cuda", "cpu"],
)
def test_out_of_memory_raises_one_line(train, few_digits, monkeypatch, error):
    def raise_error(*args):
        raise error

    monkeypatch.setattr(PhaseCompute, "forward", raise_error)
    with pytest.raises(OutOfMemory, match=r"data\.batch_size=20, .*accumulate_steps=1"):
        train("data.batch_size=20", "trainer.max_steps=1")
