"""Generated images: of any shape, deterministic, learnable, and recorded as synthetic."""

import json
from functools import partial

import pytest
import torch

from core.errors import ConfigError


@pytest.fixture
def splits(make_splits):
    """Return a function that builds the splits of given settings."""
    return partial(make_splits, "synthetic_images")


def test_shapes_and_counts_follow_the_settings(splits):
    built = splits(
        num_train=30, num_val=7, num_test=5, num_classes=3, channels=2, image_size=[9, 16]
    )
    assert built.train.tensors[0].shape == (30, 2, 9, 16)
    assert built.train.tensors[1].bincount().tolist() == [10, 10, 10]
    assert [len(built.val), len(built.test)] == [7, 5]
    assert built.spec.num_classes == 3
    assert built.spec.image_size == (9, 16)
    assert built.spec.mean == (0.5, 0.5)
    assert built.spec.synthetic


def test_images_are_deterministic_and_classes_are_separable(splits):
    built, second = splits(num_classes=4), splits(num_classes=4)
    assert torch.equal(built.train.tensors[0], second.train.tensors[0])
    images, labels = built.train.tensors
    means = torch.stack([images[labels == label].float().mean(0) for label in range(4)])
    images, labels = built.test.tensors
    predictions = torch.cdist(images.float().flatten(1), means.flatten(1)).argmin(1)
    assert (predictions == labels).float().mean() > 0.9


def test_run_files_record_that_data_is_synthetic(train):
    run_dir = train("data=synthetic_images", "debug=fast", "data.num_train=256")
    assert json.loads((run_dir / "summary.json").read_text())["synthetic_data"] is True
    assert json.loads((run_dir / "spec.json").read_text())["synthetic"] is True


def test_counts_of_zero_are_rejected(splits):
    for setting in ("num_train", "num_test", "channels", "num_classes"):
        with pytest.raises(
            ConfigError, match=rf"data\.{setting}=0 should be greater than or equal to"
        ):
            splits(**{setting: 0})
