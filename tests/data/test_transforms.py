"""``data.transforms`` and ``data.collate_fn``: torchvision's transforms, ragged samples."""

import pytest
import torch

from core.errors import ConfigError
from data.build import build_data, check_spec
from data.splits import ImageSpec, Splits
from tests.trainer.interrupting import SHORT, assert_same_run

pytestmark = pytest.mark.usefixtures("few_digits")
ROTATION = "data.transforms=[{name: RandomRotation, degrees: 30}, RandomInvert]"


@pytest.fixture
def batches_of(composed, data_root):
    def read(*overrides, epoch=0):
        overrides = ("data.augment=[]", f"data.root={data_root}", "data.batch_size=42", *overrides)
        from core.ranks import Ranks

        data = build_data(composed(*overrides)["data"], torch.device("cpu"), 0, Ranks(), 1)
        try:
            return torch.cat([batch[0] for update in data.train(epoch) for batch in update])
        finally:
            data.close()

    return read


def test_transforms_depend_on_seed_epoch_and_sample(batches_of):
    plain, turned = batches_of(), batches_of(ROTATION)
    assert plain.shape == turned.shape == (210, 1, 28, 28)
    assert (plain != turned).flatten(1).any(1).sum() > 180
    assert torch.equal(batches_of(ROTATION, "data.num_workers=2", "data.batch_size=21"), turned)
    assert not torch.equal(batches_of(ROTATION, epoch=1), turned)


def test_a_run_with_transforms_goes_on(train, tmp_path):
    """Evaluation sees the images as they are, and balanced weights the labels."""
    settings = (*SHORT, ROTATION, "objective.class_weights=balanced")
    whole = train(*settings)
    parted = tmp_path / "parted"
    train(*settings, "trainer.limit_train_steps=4", run_dir=parted)
    train(*settings, "resume=auto", run_dir=parted)
    assert_same_run(whole, parted)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.transforms=[RandomRotaton]", r"has no RandomRotaton; did you mean RandomRotation\?"),
        ("data.transforms=[query_size]", "has no query_size"),
        (
            "data.transforms=[{name: RandomRotation, angle: 3}]",
            "RandomRotation refused its settings",
        ),
        ("data.transforms=[{name: Resize, size: 14}]", "Resize makes something else of a uint8"),
        ("data.transforms=[{name: RandomCrop, size: 99}]", "RandomCrop fails on a uint8 image"),
        ("data.transforms=[{degrees: 3}]", "has no None"),
        ("data.collate_fn={_target_: data.collate.Pad}", "for samples that are read one by one"),
        ("data.collate_fn=pad", "name a function"),
    ],
)
def test_what_does_not_fit_is_one_line(batches_of, override, message):
    with pytest.raises(ConfigError, match=message):
        batches_of(override)


def test_samples_of_different_sizes(composed, tmp_path, monkeypatch):
    """A data set of one's own in the terms of the page."""
    monkeypatch.setenv("TRAIN_PACKAGES", "tests")
    from core.ranks import Ranks

    config = {
        "_target_": "tests.data.test_transforms.ragged",
        "collate_fn": {"_target_": "data.collate.Pad", "value": -1.0},
        "batch_size": 3,
        "eval_batch_size": 3,
        "num_workers": 0,
    }
    data = build_data(config, torch.device("cpu"), 0, Ranks(), 1)
    (update,) = data.train(0)
    rows, lengths = update[0]
    assert rows.shape == (3, 3)
    assert ((rows == -1).sum(1) == 3 - lengths).all()


def test_a_spec_that_lacks_something_is_one_line():
    with pytest.raises(ConfigError, match="its spec, NoneType, should be a dataclass with kind, "):
        check_spec(None, "data.mine")
    check_spec(SPEC, "data.mine")


SPEC = ImageSpec("ragged", 1, (1, 3), ("short", "long"), (0.5,), (0.5,))


def ragged():
    samples = [(torch.zeros(length), length) for length in (1, 2, 3)]
    return Splits(samples, samples, None, SPEC)
