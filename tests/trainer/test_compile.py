"""What ``trainer.compile`` hands to the compiler: one graph for every shape, none symbolic."""

import pytest
from torch import nn

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
def test_a_graph_for_each_shape(train, monkeypatch, settings):
    shapes = []

    def recording(graph, inputs):
        shapes.append([size for tensor in inputs for size in getattr(tensor, "shape", ())])
        return graph.forward

    compile = nn.Module.compile
    asked = []

    def compile_recorded(self, **options):
        asked.append(options.pop("mode"))
        compile(self, backend=recording, **options)

    monkeypatch.setattr(nn.Module, "compile", compile_recorded)
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
    assert asked == ["reduce-overhead"]
    assert len(shapes) == 2, "one to train, one to evaluate"
    assert all(isinstance(size, int) for shape in shapes for size in shape)
