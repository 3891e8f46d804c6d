"""Exported files predict what the run's model predicts, from raw pixels, in any batch size."""

import numpy
import pytest
import torch
from PIL import Image

from data.images import PrepareImages
from deploy.answers import Classes
from deploy.deploy import deploy
from deploy.export import Deployable, export_onnx, onnx_predict
from deploy.finished_run import open_run
from models.vit import VisionTransformer


@pytest.fixture(scope="module")
def run(finished_run):
    return open_run(finished_run)


def test_deployable_prepares_as_training_does(run):
    images = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    (prepared,) = PrepareImages(run.spec.mean, run.spec.std, ())((images,), None)
    with torch.inference_mode():
        expected, got = run.model(prepared), Deployable(run.model, run.spec)(images)
    assert torch.allclose(got, expected, atol=1e-5)


def test_onnx_agrees_on_the_whole_test_split_and_int8_nearly(run, tmp_path):
    answers = Classes(run.spec, {})
    exact, small = deploy(run, answers, export=None, quantize="int8", folder=tmp_path)
    assert exact.num_agreeing == exact.num_compared == 1000
    assert exact.file.name == "model.onnx"
    assert small.num_agreeing > 970
    assert abs(small.score - exact.score) < 0.02
    assert small.num_bytes < exact.num_bytes / 2
    images = torch.randint(0, 256, (7, 1, 28, 28), dtype=torch.uint8)
    exported = onnx_predict(exact.file, num_threads=1)
    alone = torch.cat([exported(image) for image in images.split(1)])
    assert torch.allclose(exported(images), alone, atol=1e-4)


def test_torch_export_of_a_run_without_a_test_split(train, tmp_path, predict):
    random = numpy.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 128)):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(20):
            pixels = random.integers(low, low + 128, (28, 28), numpy.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{number}.png")
    run_dir = train(
        "data=image_folder",
        f"data.root={tmp_path}",
        "data.batch_size=4",
        "data.num_workers=0",
        "data.val_fraction=0.5",
        "trainer.max_steps=5",
    )
    out, err = predict(run_dir, "--export", "torch", "--output", tmp_path)
    assert "val accuracy" in "\n".join(out)
    assert "20 of 20" in "\n".join(out)
    assert err == ["note: checked on the val split: the data have no test split"]
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert program(torch.zeros(5, 3, 28, 28, dtype=torch.uint8)).shape == (5, 2)


@pytest.mark.slow
def test_attention_exports(run, tmp_path):
    vit = VisionTransformer(
        1, 10, (28, 28), patch_size=7, width=16, depth=1, num_heads=2, dropout=0
    )
    model = Deployable(vit, run.spec).eval()
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    export_onnx(model, images, tmp_path / "vit.onnx")
    with torch.inference_mode():
        expected = model(images)
    predicted = onnx_predict(tmp_path / "vit.onnx", num_threads=1)(images)
    assert torch.allclose(predicted, expected, atol=1e-4)
