"""``data.transforms`` with torchvision's transforms, ``data.collate_fn`` with ragged samples."""

import pytest
import torch

from core.errors import ConfigError
from core.ranks import Ranks
from data.build import build_data, check_spec
from data.splits import ImageSpec, Splits

pytestmark = pytest.mark.usefixtures("few_digits")
ROTATION = [{"name": "RandomRotation", "degrees": 30}, "RandomInvert"]


@pytest.fixture
def images_of(make_loader):
    """Return a function that reads the images of an epoch: ``images_of(epoch=1, ...)``."""

    def read(epoch=0, **settings):
        data = make_loader("mnist5k", **{"augment": [], "batch_size": 42} | settings)
        return torch.cat([batch[0] for update in data.train(epoch) for batch in update])

    return read


def test_transforms_do_not_apply_to_evaluation(make_loader):
    loaders = [make_loader("mnist5k", transforms=transforms) for transforms in ([], ROTATION)]
    plain, transformed = (loader.evaluate("train_eval") for loader in loaders)
    for one, other in zip(plain, transformed, strict=True):
        assert all(map(torch.equal, one, other))


def test_transforms_depend_on_epoch_not_on_batches_or_workers(images_of):
    plain, transformed = images_of(), images_of(transforms=ROTATION)
    assert plain.shape == transformed.shape == (210, 1, 28, 28)
    assert (plain != transformed).flatten(1).any(1).sum() > 180
    assert torch.equal(images_of(transforms=ROTATION, num_workers=2, batch_size=21), transformed)
    assert not torch.equal(images_of(transforms=ROTATION, epoch=1), transformed)


def test_transforms_depend_on_the_seed(make_loader):
    by_sample = []
    for seed in (0, 1):
        settings = {"augment": [], "batch_size": 42, "transforms": ROTATION}
        data = make_loader("mnist5k", seed=seed, **settings)
        images = torch.cat([batch[0] for update in data.train(0) for batch in update])
        by_sample.append(images[data.epoch_order(0).argsort()])
    assert (by_sample[0] != by_sample[1]).flatten(1).any(1).sum() > 180


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ("RandomRotaton", r"has no RandomRotaton; did you mean RandomRotation\?"),
        ("query_size", "query_size is not allowed"),
        (
            {"name": "RandomRotation", "degree": 3},
            r"RandomRotation has no such setting; did you mean data.transforms\[0\].degrees\?",
        ),
        ({"name": "Resize", "size": 14}, "data.transforms: Resize turns uint8 images of shape"),
        ({"name": "RandomCrop", "size": 99}, "data.transforms: RandomCrop fails on uint8 images"),
        ({"degrees": 3}, "has no None"),
    ],
)
def test_wrong_transform_is_rejected(images_of, transform, message):
    with pytest.raises(ConfigError, match=message):
        images_of(transforms=[transform])


@pytest.mark.parametrize(
    ("collate", "message"),
    [
        ({"_target_": "data.collate.Pad"}, "for samples that are read one by one"),
        ("pad", "should name a function"),
    ],
)
def test_wrong_collate_function_is_rejected(images_of, collate, message):
    with pytest.raises(ConfigError, match=message):
        images_of(collate_fn=collate)


def test_custom_data_set_of_ragged_samples_is_padded(monkeypatch):
    """The data set is a user's function named by ``_target_``, as documented."""
    monkeypatch.setenv("TRAIN_PACKAGES", "tests")
    config = {
        "_target_": "tests.data.test_transforms.ragged",
        "collate_fn": {"_target_": "data.collate.Pad", "value": -1.0},
        "batch_size": 3,
        "eval_batch_size": 3,
        "num_workers": 0,
    }
    data = build_data(config, torch.device("cpu"), 0, Ranks(), 1)
    ((images, areas),) = next(data.train(0))
    assert images.shape == (3, 4, 5)
    assert ((images == 0).sum((1, 2)) == areas).all()
    assert ((images == -1).sum((1, 2)) == 20 - areas).all()


def test_value_that_is_not_a_spec_is_rejected():
    with pytest.raises(ConfigError, match="its spec, NoneType, should be a dataclass with kind, "):
        check_spec(None, "data.mine")
    check_spec(SPEC, "data.mine")


SPEC = ImageSpec("ragged", 1, (1, 3), ("short", "long"), (0.5,), (0.5,))


def ragged():
    samples = [(torch.zeros(size), size[0] * size[1]) for size in ((2, 3), (4, 1), (1, 5))]
    return Splits(samples, samples, None, SPEC)
