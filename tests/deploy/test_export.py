"""Exported models predict the same as the run's model, from raw pixels, at any batch size."""

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


def test_deployable_prepares_images_as_in_training(run):
    images = torch.randint(0, 256, (3, 1, 28, 28), dtype=torch.uint8)
    (prepared,) = PrepareImages(run.spec.mean, run.spec.std, ())((images,), None)
    with torch.inference_mode():
        expected, got = run.model(prepared), Deployable(run.model, run.spec)(images)
    assert torch.allclose(got, expected, atol=1e-5)


def test_onnx_matches_the_model_and_int8_nearly_does(run, tmp_path):
    """Both are compared with the model on the whole test split."""
    answers = Classes(run.spec, {})
    onnx, int8 = deploy(run, answers, export=None, quantize="int8", folder=tmp_path)
    assert onnx.num_agreeing == onnx.num_compared == 1000
    assert onnx.file.name == "model.onnx"
    assert int8.num_agreeing > 970
    assert abs(int8.score - onnx.score) < 0.02
    assert int8.num_bytes < onnx.num_bytes / 2
    images = torch.randint(0, 256, (7, 1, 28, 28), dtype=torch.uint8)
    predict = onnx_predict(onnx.file, num_threads=1)
    one_by_one = torch.cat([predict(image) for image in images.split(1)])
    assert torch.allclose(predict(images), one_by_one, atol=1e-4)


def test_torch_export_without_test_split_checks_the_val_split(train, tmp_path, predict):
    rng = numpy.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 128)):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(low, low + 128, (28, 28), numpy.uint8)
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
def test_vision_transformer_exports_to_onnx(run, tmp_path):
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
