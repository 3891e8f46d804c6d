"""Class weights of classification, multi-label and segmentation losses."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from core.errors import ConfigError
from data.build import build_splits
from data.splits import UNLABELLED, ImageSpec, TensorSplit
from objectives.classification import Classification
from objectives.multilabel import Multilabel
from objectives.segmentation import Segmentation

SPEC = ImageSpec("three", 1, (2, 2), ("a", "b", "c"), (0.5,), (0.5,))
LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 2, 0])  # class counts 5, 2 and 1
BALANCED = torch.tensor([8 / (3 * 5), 8 / (3 * 2), 8 / 3])


def objective_for(split, class_weights, kind=Classification, **settings):
    torch.manual_seed(0)
    is_dense = kind is Segmentation
    model = nn.Conv2d(1, 3, 1) if is_dense else nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    objective = kind(model, SPEC, class_weights=class_weights, **settings)
    objective.setup(SimpleNamespace(splits={"train": split}, device=torch.device("cpu")))
    return objective


@pytest.fixture
def batch():
    return torch.randn(8, 1, 2, 2, generator=torch.Generator().manual_seed(1)), LABELS


@pytest.fixture
def split(batch):
    return TensorSplit(*batch)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_balanced_loss_equals_mean_of_class_losses(split, batch, smoothing):
    objective = objective_for(split, "balanced", label_smoothing=smoothing)
    loss, _ = objective("train", batch)
    logits = objective.model(batch[0])
    targets = F.one_hot(LABELS, 3) * (1 - smoothing) + smoothing / 3
    expected = -(targets * BALANCED * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, expected)
    if smoothing == 0:
        losses = F.cross_entropy(logits, LABELS, reduction="none")
        by_class = torch.stack([losses[c == LABELS].mean() for c in range(3)])
        torch.testing.assert_close(loss, by_class.mean())


def test_micro_batch_losses_average_to_batch_loss(split, batch):
    """torch's weighted mean divides by the sum of weights in each micro-batch, so it would not."""
    objective = objective_for(split, "balanced")
    full, _ = objective("train", batch)
    micro_losses = [
        objective("train", (batch[0][half], LABELS[half]))[0]
        for half in ([0, 1, 2, 3], [4, 5, 6, 7])
    ]
    torch.testing.assert_close(sum(micro_losses) / 2, full)


def test_weight_list_is_used_as_given(split, batch):
    loss, _ = objective_for(split, [1, 0, 2.5])("train", batch)
    same, _ = objective_for(TensorDataset(*batch), [1, 0, 2.5])("train", batch)
    logits = objective_for(split, None).model(batch[0])
    losses = F.cross_entropy(logits, LABELS, reduction="none")
    torch.testing.assert_close(loss, (losses * torch.tensor([1, 0, 2.5])[LABELS]).mean())
    assert loss == same


def test_evaluation_loss_is_unweighted(split, batch):
    plain, weighted = (objective_for(split, weights) for weights in (None, "balanced"))
    expected, _ = plain.evaluate(plain.model, batch)
    found, _ = weighted.evaluate(weighted.model, batch)
    assert found["loss"] == expected["loss"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("even", "class_weights=even should be null, balanced or 3 numbers"),
        ([1, 2], r"class_weights=\[1, 2\] should be .* one for each class: a, b, c"),
        ([1, 2, -1], "0 or more"),
        ([1, 2, "x"], "0 or more"),
        ([1, 2, float("inf")], "0 or more"),
        ([0, 0, 0], "not all 0"),
    ],
)
def test_invalid_weights_are_rejected(split, weights, message):
    with pytest.raises(ConfigError, match=message):
        objective_for(split, weights)


@pytest.mark.parametrize("weights", ["balanced", [3, 1, 7 / 3]])
def test_multilabel_weights_scale_positive_losses(weights):
    """``balanced`` scales them by the ratio of negative to positive samples of the label."""
    images = torch.randn(8, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    labels = torch.zeros(8, 3, dtype=torch.uint8)
    for label, count in enumerate((2, 4, 1)):
        labels[:count, label] = 1
    factors = torch.tensor([3, 1, 7.0] if weights == "balanced" else weights)
    split = TensorSplit(images, labels)
    objective = objective_for(split, weights, Multilabel)
    loss, _ = objective("train", (images, labels))
    logits = objective.model(images)
    losses = F.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none")
    torch.testing.assert_close(loss, (losses * torch.where(labels == 1, factors, 1.0)).mean())
    assert_evaluation_loss(objective, (images, labels), losses.mean())
    with pytest.raises(ConfigError, match="no training samples of c"):
        objective_for(TensorSplit(images, labels * torch.tensor([1, 1, 0])), "balanced", Multilabel)
    with pytest.raises(ConfigError, match="every training sample has a"):
        objective_for(
            TensorSplit(images, labels | torch.tensor([1, 0, 0], dtype=torch.uint8)),
            "balanced",
            Multilabel,
        )


@pytest.mark.parametrize("weights", ["balanced", [0.5, 2, 4]])
def test_segmentation_weights_scale_pixel_losses(weights):
    """Unlabelled pixels count neither for the class frequencies nor for the loss."""
    images = torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    masks = torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 0, 2, UNLABELLED, UNLABELLED])
    masks = masks.view(4, 2, 2).to(torch.uint8)
    counts = torch.tensor([9, 3, 2])
    by_class = 14 / (3 * counts) if weights == "balanced" else torch.tensor(weights)
    objective = objective_for(TensorSplit(images, masks), weights, Segmentation)
    loss, _ = objective("train", (images, masks))
    logits, targets, labelled = objective.model(images), masks.long(), masks != UNLABELLED
    losses = F.cross_entropy(logits, targets * labelled, reduction="none") * labelled
    num_labelled = labelled.sum((1, 2))
    weighted = losses * by_class[targets * labelled]
    torch.testing.assert_close(loss, (weighted.sum((1, 2)) / num_labelled).mean())
    objective.begin_evaluation(0)
    assert_evaluation_loss(objective, (images, masks), (losses.sum((1, 2)) / num_labelled).mean())


def assert_evaluation_loss(objective, batch, expected):
    (loss, count) = objective.evaluate(objective.model, batch)[0]["loss"]
    torch.testing.assert_close(loss / count, expected.detach())


@pytest.mark.parametrize("kind", [TensorSplit, TensorDataset])
@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (torch.zeros(8, 2, 2, dtype=torch.long), r"int64 of shape \(2, 2\)"),  # masks
        (torch.full((8, 3), 1 / 3), r"float32 of shape \(3,\)"),  # probabilities
        (LABELS.float(), r"float32 of shape \(\)"),
        (LABELS + 3, "3 to [35]"),
    ],
)
def test_non_class_labels_are_rejected(batch, kind, labels, found):
    message = f"int64 from 0 to 2; the labels of the train split are {found}"
    with pytest.raises(ConfigError, match=message):
        objective_for(kind(batch[0], labels), None)


def test_balanced_requires_labels_and_every_class(batch):
    with pytest.raises(ConfigError, match="give the weights as a list"):
        objective_for(TensorDataset(*batch), "balanced")
    with pytest.raises(ConfigError, match="no training samples of c"):
        objective_for(TensorSplit(batch[0], LABELS.clamp(max=1)), "balanced")


def test_balanced_weights_of_streamed_images(composed, tmp_path):
    for name, count in (("a", 20), ("b", 10)):
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8)).save(folder / f"{number}.png")
    where = ("data=image_folder", f"data.root={tmp_path}", "data.resident=false")
    config = composed(*where, "data.image_size=8")
    split = build_splits(config["data"]).train
    spec = ImageSpec("two", 3, (8, 8), ("a", "b"), (0.5,) * 3, (0.5,) * 3)
    objective = Classification(nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), spec)
    assert objective.balanced_weights(split).tolist() == pytest.approx([0.75, 1.5])
