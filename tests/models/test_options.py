"""Every classifier trains as its ``model=`` option stands."""

import json

import pytest

SMALL = ("debug=fast", "data.batch_size=4", "data.eval_batch_size=4")


@pytest.mark.parametrize(
    "choice",
    [
        ("model=resnet18",),
        ("model=resnet34",),
        ("model=resnet50",),
        ("model=resnet18", "model.stem=imagenet", "model.zero_init_residual=true"),
        ("model=vit",),
        ("model=timm", "model.name=torchvision/mobilenet_v3_small"),
    ],
    ids=" ".join,
)
def test_trains(choice, train):
    run_dir = train(*choice, *SMALL, "trainer.checkpoint=false")
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["test/loss"] > 0
