"""Segmentation: metrics and losses over labelled pixels, invalid masks, masks as files."""

import json

import numpy
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from core.errors import ConfigError
from data.splits import UNLABELLED, ImageSpec
from models.segmentation_unet import SegmentationUNet
from objectives.segmentation import Segmentation
from predict import main
from tests.trainer.interrupting import summary

SPEC = ImageSpec("shapes", 1, (8, 8), ("ground", "square", "disc", "star"), (0.5,), (0.5,))


@pytest.fixture
def objective():
    torch.manual_seed(0)
    return Segmentation(nn.Conv2d(1, 4, 3, padding=1), SPEC)


@pytest.fixture
def batch():
    """30 images and masks; no mask has a star, and the last has no labelled pixel."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(30, 1, 8, 8, generator=generator)
    masks = torch.randint(0, 3, (30, 8, 8), generator=generator).to(torch.uint8)
    masks[torch.rand(30, 8, 8, generator=generator) < 0.2] = UNLABELLED
    masks[-1] = UNLABELLED
    return images, masks


def test_iou_is_computed_over_all_pixels_of_the_split(objective, batch):
    images, masks = batch
    objective.model.bias.data[3] = -9.0  # no star in the predictions either
    objective.begin_evaluation(0)
    with torch.no_grad():
        for part in range(0, 30, 7):
            objective.evaluate(objective.model, (images[part : part + 7], masks[part : part + 7]))
        predicted = objective.model(images).argmax(1)
    expected = []
    for class_index in range(3):
        predicted_class, true_class = (
            (predicted == class_index) & (masks != UNLABELLED),
            masks == class_index,
        )
        expected.append(
            ((predicted_class & true_class).sum() / (predicted_class | true_class).sum()).item()
        )
    metrics = objective.metrics.compute()
    assert [metrics[f"iou/{name}"] for name in SPEC.class_names[:3]] == pytest.approx(expected)
    assert numpy.isnan(metrics["iou/star"])
    assert metrics["miou"] == pytest.approx(numpy.mean(expected))
    is_correct = (predicted == masks)[masks != UNLABELLED]
    assert metrics["pixel_accuracy"] == pytest.approx(is_correct.float().mean().item())


def test_loss_averages_labelled_pixels_per_image(objective, batch):
    images, masks = batch
    loss, sums = objective("train", batch)
    losses = []
    for image, mask in zip(images[:-1], masks[:-1], strict=True):
        labelled = mask != UNLABELLED
        logits = objective.model(image[None])[0].permute(1, 2, 0)[labelled]
        losses.append(F.cross_entropy(logits, mask[labelled].long()))
    torch.testing.assert_close(loss, torch.stack(losses).sum() / 30)
    halves = [objective("train", (images[i : i + 15], masks[i : i + 15]))[0] for i in (0, 15)]
    torch.testing.assert_close(torch.stack(halves).mean(), loss)
    assert sums["loss"][1] == 30


def test_invalid_masks_are_rejected(objective):
    invalid = {
        r"uint8 of shape \(8, 8\); those of the val split are int64 of shape \(\)": torch.arange(3),
        r"those of the val split are uint8 of shape \(4, 4\)": torch.zeros(3, 4, 4).byte(),
        r"have a class 4; there are 4, from 0 to 3": torch.full((3, 8, 8), 4).byte(),
    }
    for message, masks in invalid.items():
        with pytest.raises(ConfigError, match=message):
            objective.check_targets(masks, "val")
    with pytest.raises(ConfigError, match=r"instead of one tensor of shape \(2, 4, 8, 8\)"):
        Segmentation(nn.Conv2d(1, 5, 1), SPEC)
    with pytest.raises(ValueError, match="10x8 must be a multiple of 4 for the 3 levels"):
        SegmentationUNet(1, 2, (10, 8), [8, 8, 8])


def test_run_shows_and_predicts_masks(train, tmp_path, capsys):
    run_dir = train(
        "model=segmentation_unet",
        "model.widths=[4,4]",
        "data.num_train=32",
        "data.num_val=12",
        "data.num_test=12",
        "data.batch_size=16",
        "trainer.max_epochs=1",
    )
    found = summary(run_dir)
    assert {"test/miou", "test/iou/ground", "test/pixel_accuracy"} <= set(found)
    for picture in ("val_step_2/masks.png", "masks.png"):
        with Image.open(run_dir / "media" / picture) as grid:
            assert grid.size == (3 * (3 * 32) + 4, 3 * 32 + 4)  # 9 samples, 3 pictures each
    wide, answers = tmp_path / "wide.png", tmp_path / "out.json"
    Image.fromarray(numpy.full((60, 100, 3), 200, numpy.uint8)).save(wide)
    capsys.readouterr()
    assert main([str(run_dir), str(wide), "--json", str(answers)]) == 0
    rows = json.loads(answers.read_text())
    file = run_dir / "predictions" / "wide_mask.png"
    assert rows[0]["mask"] == str(file)
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert capsys.readouterr().out.startswith(f"{wide}  {file}  {rows[0]['class']}  ")
    with Image.open(file) as mask:
        assert (mask.size, mask.mode) == ((100, 60), "P")
        pixels = numpy.asarray(mask)
    assert (pixels[:, :20] == UNLABELLED).all()  # cropped away
    assert (pixels[:, 20:80] < 11).all()
    assert main([str(run_dir), str(wide), str(wide), "--output", str(tmp_path / "masks")]) == 0
    names = sorted(path.name for path in (tmp_path / "masks").iterdir())
    assert names == ["wide_mask.png", "wide_mask_2.png"]
    capsys.readouterr()
    assert main([str(run_dir), "--test"]) == 0
    out = capsys.readouterr().out
    assert out.count("(as recorded)") + out.count("nan") == len(out.splitlines()) == 14
