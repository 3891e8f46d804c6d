"""``trainer.cuda_graph``: an update repeated from its kernels alone is the update.

A graph is played here on the CPU: the operations of one update are recorded with the tensors they
read and wrote, and repeated on those very tensors, without a line of the program's own.
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
    """Operations with their tensors; :meth:`replay` writes their results where they were first."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, results))
        return results

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, before in self.calls:
            for place, value in zip(flat(before), flat(function(*args, **kwargs)), strict=True):
                if place.untyped_storage().data_ptr() != value.untyped_storage().data_ptr():
                    place.copy_(value)


def flat(results):
    if isinstance(results, Tensor):
        return [results]
    return [t for each in results for t in flat(each)] if isinstance(results, list | tuple) else []


@pytest.fixture
def replays(monkeypatch):
    """Let the CPU pass for a device that captures graphs; one entry for every replay."""
    running, replays = [], []
    fit = Trainer.fit

    def fit_as_on_gpu(trainer):
        running[:] = [trainer]
        trainer.finite = replace(trainer.finite, reads_are_free=False)
        fit(trainer)

    def capture(compute, inputs):
        with undone(running[0]), Recording() as recording:  # which computes, unlike a capture
            sums = compute(inputs)

        def replay():
            replays.append(recording)
            recording.replay()

        return sums, replay

    monkeypatch.setattr(Trainer, "fit", fit_as_on_gpu)
    monkeypatch.setattr(cuda_graph, "DEVICES", ("cpu",))
    monkeypatch.setattr(cuda_graph, "capture", capture)
    monkeypatch.setattr(cuda_graph, "host_generators", lambda: None)  # dropout's is one of them
    return replays


@contextmanager
def undone(trainer):
    """Weights, buffers, the optimizers' state and the generator are put back, in place."""
    states = [state for phase in trainer.phases for state in phase.optimizer.state.values()]
    tensors = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    tensors += [*trainer.objective.parameters(), *trainer.objective.buffers()]
    before, draws = [tensor.detach().clone() for tensor in tensors], torch.get_rng_state()
    yield
    torch.set_rng_state(draws)
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
def test_replayed_updates_train_as_computed_ones(train, few_digits, replays, monkeypatch, settings):
    graphed = train(*RUN, *settings, "trainer.cuda_graph=true")
    assert len(replays) == STEPS - 6  # updates 1, 5 and 10 are logged, 2 to 4 warm up
    monkeypatch.setattr(cuda_graph, "WARM_UPDATES", STEPS)
    computed = train(*RUN, *settings, "trainer.cuda_graph=true")
    assert len(replays) == STEPS - 6
    assert_same_run(computed, graphed)


def test_a_graphed_run_resumes_to_the_same_bits(replays, resumable, few_digits):
    resumable((7,), *RUN, "optim=adamw_warmup_cosine", "trainer.cuda_graph=true")
    assert replays


@pytest.mark.parametrize(
    ("settings", "said"),
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
def test_what_a_graph_cannot_hold_is_refused_by_name(
    train, few_digits, monkeypatch, settings, said
):
    if settings:
        monkeypatch.setattr(cuda_graph, "DEVICES", ("cpu",))
    with pytest.raises(ConfigError, match=f"trainer.cuda_graph=true.*{said}"):
        train(*RUN, *settings, "trainer.cuda_graph=true")


@pytest.mark.parametrize(
    "draw", [lambda: torch.rand(1), random.random, lambda: numpy.random.random(312)]
)
def test_draws_on_the_cpu_are_refused(monkeypatch, draw):
    monkeypatch.setattr(cuda_graph, "DEVICES", ("cpu",))
    graph = GraphedUpdate(lambda update: [draw(), []][1:], [])
    with pytest.raises(ConfigError, match="draws on the CPU"):
        graph([(torch.zeros(1),)])


def test_several_processes_are_refused(train, few_digits, monkeypatch):
    monkeypatch.setattr(cuda_graph, "DEVICES", ("cpu",))
    monkeypatch.setattr(cuda_graph, "dist", SimpleNamespace(is_initialized=lambda: True))
    with pytest.raises(ConfigError, match=r"trainer.cuda_graph=true needs one process"):
        train(*RUN, "trainer.cuda_graph=true")


def test_why_an_update_cannot_be_captured(monkeypatch):
    """As torch has it: ending such a capture fails as well, and leaves its stream behind."""
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

    def reads(update):
        raise RuntimeError("operation not permitted when stream is capturing")

    fakes = {"CUDAGraph": object, "current_stream": lambda: streams[0]}
    for name, fake in {**fakes, "stream": Stream, "graph": Capture}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    with pytest.raises(ConfigError, match="set it to false: operation not permitted"):
        cuda_graph.capture(reads, [])
    assert streams == ["default"]


def test_samples_on_the_cpu_are_refused():
    with pytest.raises(ConfigError, match="tensors of a batch on the GPU"):
        GraphedUpdate(lambda update: [], [])([(torch.zeros(1),)])


def test_a_batch_that_is_a_view_of_the_data_is_not_written_to(monkeypatch):
    monkeypatch.setattr(cuda_graph, "capture", lambda compute, inputs: ([], lambda: None))
    data = torch.arange(6).view(3, 2)
    graph = GraphedUpdate(lambda update: [], [])
    graph.num_warm = cuda_graph.WARM_UPDATES
    for part in data:
        graph([(part,)])
    assert data.flatten().tolist() == [*range(6)]
    assert graph.inputs[0][0].tolist() == [4, 5]


def test_another_shape_is_refused():
    weight = nn.Parameter(torch.ones(2))
    graph = GraphedUpdate(lambda update: [], [])
    graph.inputs, graph.replay = [(torch.zeros(4, 2), torch.zeros(4))], lambda: weight.add(1)
    graph.num_warm = cuda_graph.WARM_UPDATES
    with pytest.raises(ConfigError, match=r"needs batches of one shape, .*\(3, 2\)"):
        graph([(torch.zeros(3, 2), torch.zeros(3))])


@pytest.mark.parametrize(
    "name", ["Adadelta", "Adam", "Adamax", "AdamW", "ASGD", "NAdam", "RAdam", "RMSprop"]
)
def test_a_step_that_is_captured_reads_nothing(name):
    """As seen by fake tensors of a GPU, on which reading a value fails."""
    node = {"_target_": f"torch.optim.{name}"}
    with FakeTensorMode():
        weight = nn.Parameter(torch.ones(3, 2, device="cuda"))
        settings = capturable(node, "optimizer")
        optimizer = instantiate(settings, "optimizer", params=[weight])
        optimizer.param_groups[0]["lr"] = torch.tensor(0.1, device="cuda")
        for _ in range(2):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
