"""Generated images: of any shape, always the same, learnable, and never taken for real."""

import json
from functools import partial

import pytest
import torch

from core.errors import ConfigError


@pytest.fixture
def splits(splits_of):
    return partial(splits_of, "synthetic_images")


def test_any_shape(splits):
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


def test_classes_can_be_told_apart_across_splits(splits):
    built, again = splits(num_classes=4), splits(num_classes=4)
    assert torch.equal(built.train.tensors[0], again.train.tensors[0])
    images, labels = built.train.tensors
    means = torch.stack([images[labels == label].float().mean(0) for label in range(4)])
    tests, answers = built.test.tensors
    guesses = torch.cdist(tests.float().flatten(1), means.flatten(1)).argmin(1)
    assert (guesses == answers).float().mean() > 0.9


def test_records_say_synthetic(train):
    run_dir = train("data=synthetic_images", "debug=fast", "data.num_train=256")
    assert json.loads((run_dir / "summary.json").read_text())["synthetic_data"] is True
    assert json.loads((run_dir / "spec.json").read_text())["synthetic"] is True


def test_nothing_of_something(splits):
    for setting in ("num_train", "num_test", "channels", "num_classes"):
        with pytest.raises(
            ConfigError, match=rf"data\.{setting}=0 should be greater than or equal to"
        ):
            splits(**{setting: 0})
