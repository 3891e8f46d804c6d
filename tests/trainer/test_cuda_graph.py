"""``trainer.cuda_graph``: replayed updates equal eager ones.

CUDA graphs are simulated on the CPU: the operations of one update are recorded with the tensors
that they read and wrote, and replayed on the same tensors without running the update's Python code.
"""

import random
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from core.errors import ConfigError
from core.instantiate import instantiate
from tests.trainer.interrupting import assert_same_run
from trainer import cuda_graph
from trainer.cuda_graph import GraphedUpdate, capturable
from trainer.trainer import Trainer

STEPS = 12
RUN = (
    f"trainer.max_steps={STEPS}",
    "trainer.eval_every_steps=4",
    "trainer.log_every_steps=5",
    "data.batch_size=30",
    "trainer.precision=fp32",
)


class Recording(TorchDispatchMode):
    """Records operations and their tensors; :meth:`replay` overwrites the recorded outputs."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, results))
        return results

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, outputs in self.calls:
            for target, value in zip(flat(outputs), flat(function(*args, **kwargs)), strict=True):
                if target.untyped_storage().data_ptr() != value.untyped_storage().data_ptr():
                    target.copy_(value)


def flat(results):
    if isinstance(results, Tensor):
        return [results]
    return [t for each in results for t in flat(each)] if isinstance(results, list | tuple) else []


@pytest.fixture
def replays(monkeypatch):
    """Simulate graph capture on the CPU; the list has one entry per replay."""
    running, replays = [], []
    fit = Trainer.fit

    def fit_as_on_gpu(trainer):
        running[:] = [trainer]
        trainer.finite = replace(trainer.finite, reads_are_free=False)
        fit(trainer)

    def capture(compute, inputs):
        # unlike a capture, recording also computes
        with restored_afterwards(running[0]), Recording() as recording:
            sums = compute(inputs)

        def replay():
            replays.append(recording)
            recording.replay()

        return sums, replay

    monkeypatch.setattr(Trainer, "fit", fit_as_on_gpu)
    monkeypatch.setattr(cuda_graph, "DEVICES", ("cpu",))
    monkeypatch.setattr(cuda_graph, "capture", capture)
    monkeypatch.setattr(cuda_graph, "host_generators", lambda: None)  # dropout uses one of them
    return replays


@contextmanager
def restored_afterwards(trainer):
    """Restore weights, buffers, optimizer states and the random state, in place."""
    states = [state for phase in trainer.phases for state in phase.optimizer.state.values()]
    tensors = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    tensors += [*trainer.objective.parameters(), *trainer.objective.buffers()]
    before, rng_state = [tensor.detach().clone() for tensor in tensors], torch.get_rng_state()
    yield
    torch.set_rng_state(rng_state)
    with torch.no_grad():
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)


@pytest.mark.parametrize(
    "settings",
    [
        ("model=lightcnn", "optim=sgd_cosine", "optimizer.fused=false", "trainer.clip_grad_norm=1"),
        ("model=vit", "optim=adamw_warmup_cosine", "model.dropout=0.1",
         "trainer.accumulate_steps=2", "trainer.ema_decay=0.9"),
    ],
)  # fmt: skip
def test_replayed_updates_equal_eager_updates(train, few_digits, replays, monkeypatch, settings):
    graphed = train(*RUN, *settings, "trainer.cuda_graph=true")
    assert len(replays) == STEPS - 6  # updates 1, 5 and 10 are logged, thus eager; 2 to 4 warm up
    monkeypatch.setattr(cuda_graph, "WARM_UPDATES", STEPS)
    eager = train(*RUN, *settings, "trainer.cuda_graph=true")
    assert len(replays) == STEPS - 6
    assert_same_run(eager, graphed)


def test_graphed_run_resumes_bit_identical(replays, check_resume, few_digits):
    check_resume((7,), *RUN, "optim=adamw_warmup_cosine", "trainer.cuda_graph=true")
    assert replays


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((), "a CUDA device"),
        (("trainer.compile=true",), "trainer.compile=false"),
        (("trainer.precision=fp16",), "trainer.precision=fp32 or bf16"),
        (("trainer.on_nonfinite=skip",), "trainer.on_nonfinite=raise or stop"),
        (("scheduler@weight_decay_schedule=cosine",), "an optimizer without weight_decay_schedule"),
        (("optimizer=lion",), "optimizer: the step of .* cannot be captured"),
        (("optimizer._target_=torch.optim.Rprop",), "optimizer: the step of .* cannot be captured"),
        (("optimizer._target_=timm.optim.NAdamW",), "optimizer: the step of .* cannot be captured"),
        (("model=lstm",), r"an objective without state between updates \(carried"),
    ],
)
def test_settings_that_cannot_be_captured_are_rejected(
    train, few_digits, monkeypatch, settings, message
):
    if settings:
        monkeypatch.setattr(cuda_graph, "DEVICES", ("cpu",))
    with pytest.raises(ConfigError, match=f"trainer.cuda_graph=true.*{message}"):
        train(*RUN, *settings, "trainer.cuda_graph=true")


@pytest.mark.parametrize(
    "draw", [lambda: torch.rand(1), random.random, lambda: numpy.random.random(312)]
)
def test_random_numbers_on_cpu_are_rejected(monkeypatch, draw):
    monkeypatch.setattr(cuda_graph, "DEVICES", ("cpu",))
    graph = GraphedUpdate(lambda update: [draw(), []][1:], [])
    with pytest.raises(ConfigError, match="draws on the CPU"):
        graph([(torch.zeros(1),)])


def test_several_processes_are_rejected(train, few_digits, monkeypatch):
    monkeypatch.setattr(cuda_graph, "DEVICES", ("cpu",))
    monkeypatch.setattr(cuda_graph, "dist", SimpleNamespace(is_initialized=lambda: True))
    with pytest.raises(ConfigError, match=r"trainer.cuda_graph=true needs one process"):
        train(*RUN, "trainer.cuda_graph=true")


def test_capture_error_names_its_cause(monkeypatch):
    """In torch, ending a failed capture raises as well, and leaves its stream active."""
    streams = ["default"]

    class Stream:
        def __init__(self, stream):
            self.stream = stream

        def __enter__(self):
            self.before, streams[0] = streams[0], self.stream

        def __exit__(self, *error):
            streams[0] = self.before

    class Capture(Stream):
        def __init__(self, graph, capture_error_mode):
            super().__init__("captured")

        def __exit__(self, *error):
            raise RuntimeError("operation failed due to a previous error during capture")

    def compute_with_a_read(update):
        raise RuntimeError("operation not permitted when stream is capturing")

    fakes = {"CUDAGraph": object, "current_stream": lambda: streams[0]}
    for name, fake in {**fakes, "stream": Stream, "graph": Capture}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    with pytest.raises(ConfigError, match="set it to false: operation not permitted"):
        cuda_graph.capture(compute_with_a_read, [])
    assert streams == ["default"]


def test_cpu_samples_are_rejected():
    with pytest.raises(ConfigError, match="tensors of a batch on the GPU"):
        GraphedUpdate(lambda update: [], [])([(torch.zeros(1),)])


def test_batch_that_is_a_view_is_not_modified(monkeypatch):
    monkeypatch.setattr(cuda_graph, "capture", lambda compute, inputs: ([], lambda: None))
    data = torch.arange(6).view(3, 2)
    graph = GraphedUpdate(lambda update: [], [])
    graph.num_warm = cuda_graph.WARM_UPDATES
    for part in data:
        graph([(part,)])
    assert data.flatten().tolist() == [*range(6)]
    assert graph.inputs[0][0].tolist() == [4, 5]


def test_changed_batch_shape_is_rejected():
    weight = nn.Parameter(torch.ones(2))
    graph = GraphedUpdate(lambda update: [], [])
    graph.inputs, graph.replay = [(torch.zeros(4, 2), torch.zeros(4))], lambda: weight.add(1)
    graph.num_warm = cuda_graph.WARM_UPDATES
    with pytest.raises(ConfigError, match=r"needs batches of one shape, .*\(3, 2\)"):
        graph([(torch.zeros(3, 2), torch.zeros(3))])


@pytest.mark.parametrize(
    "name", ["Adadelta", "Adam", "Adamax", "AdamW", "ASGD", "NAdam", "RAdam", "RMSprop"]
)
def test_capturable_step_reads_no_values(name):
    """Checked with fake CUDA tensors, on which reading a value raises."""
    node = {"_target_": f"torch.optim.{name}"}
    with FakeTensorMode():
        weight = nn.Parameter(torch.ones(3, 2, device="cuda"))
        settings = capturable(node, "optimizer")
        optimizer = instantiate(settings, "optimizer", params=[weight])
        optimizer.param_groups[0]["lr"] = torch.tensor(0.1, device="cuda")
        for _ in range(2):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
