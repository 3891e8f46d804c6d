"""``trainer.compile``: one graph per input shape, without symbolic sizes."""

import pytest
import torch
from torch import nn

from trainer.distributed.device import keep_out_of_autocast

pytestmark = pytest.mark.slow  # importing the compiler takes seconds


@pytest.mark.parametrize(
    "settings",
    [
        ("model=transformer", "model.num_layers=1", "model.width=16", "data=python_docs",
         "data.context_length=16"),
        ("model=lightcnn",),
    ],
    ids=["text", "images"],
)  # fmt: skip
def test_compiles_one_graph_per_shape(train, monkeypatch, settings):
    shapes = []

    def record_graph(graph, inputs):
        shapes.append([size for tensor in inputs for size in getattr(tensor, "shape", ())])
        return graph.forward

    compile = nn.Module.compile
    modes = []

    def compile_and_record(self, **options):
        modes.append(options.pop("mode"))
        compile(self, backend=record_graph, **options)

    monkeypatch.setattr(nn.Module, "compile", compile_and_record)
    train(
        *settings,
        "trainer.compile=reduce-overhead",
        "data.batch_size=8",
        "data.eval_batch_size=16",
        "trainer.max_steps=6",
        "trainer.eval_every_steps=2",
        "trainer.limit_eval_steps=2",
        "trainer.test=false",
    )
    assert modes == ["reduce-overhead"]
    assert len(shapes) == 2, "one to train, one to evaluate"
    assert all(isinstance(size, int) for shape in shapes for size in shape)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(4, 4), kind(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.layer(self.first(x))[0])


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler reads it
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layer_runs_in_fp32_under_autocast(kind):
    model, x = Recurrent(kind), torch.rand(2, 3, 4)
    keep_out_of_autocast(model.layer, "cpu")
    dtypes = []
    model.layer.register_forward_hook(lambda *args: dtypes.append(args[-1][0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(x)
        model.compile(backend="aot_eager", dynamic=False)
        assert torch.equal(model(x), expected)
    assert expected.dtype == torch.bfloat16
    assert dtypes == [torch.float32] * 2
