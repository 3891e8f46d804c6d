"""Classifiers of timm and torchvision, adapted to the data's channels and classes."""

import json
import os
from pickle import UnpicklingError

import pytest
import timm
import torch
from torchvision import models as torchvision_models

from core.errors import ConfigError
from models.timm_model import timm_model


@pytest.mark.parametrize("name", ["resnet10t", "torchvision/resnet18", "torchvision/squeezenet1_1"])
def test_model_takes_channels_and_classes_of_the_data(name):
    model = timm_model(name, in_channels=1, num_classes=7).eval()
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)


def test_grey_images_give_the_output_of_rgb_ones(monkeypatch):
    theirs = torchvision_models.resnet18().eval()
    monkeypatch.setattr(torchvision_models, "get_model", lambda *_, **__: theirs)
    images = torch.randn(2, 1, 32, 32)
    expected = theirs.layer1(theirs.conv1(images.expand(-1, 3, -1, -1)))
    ours = timm_model("torchvision/resnet18", in_channels=1, num_classes=10)
    assert torch.allclose(ours.layer1(ours.conv1(images)), expected, atol=1e-5)


@pytest.mark.usefixtures("few_digits")
def test_torchvision_model_trains(train):
    choice = ("model=timm", "model.name=torchvision/mobilenet_v3_small", "trainer.checkpoint=false")
    run_dir = train(*choice, "debug=fast", "data.batch_size=4", "data.eval_batch_size=4")
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["test/loss"] > 0


@pytest.mark.parametrize("name", ["resnet81", "torchvision/resnet81"])
def test_unknown_model_name_suggests_closest(name):
    nearest = name.replace("81", "18")
    with pytest.raises(ConfigError, match=rf"={name}: \w+ has no .*closest: .*{nearest}"):
        timm_model(name, in_channels=3, num_classes=10)


@pytest.mark.parametrize(
    ("name", "library", "function"),
    [
        ("resnet18", timm, "create_model"),
        ("torchvision/resnet18", torchvision_models, "get_model"),
    ],
)
def test_failed_download_is_reported_in_one_line(name, library, function, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host\nand much more")

    monkeypatch.setattr(library, function, unreachable)
    with pytest.raises(ConfigError, match=r"no weights for .*resnet18: no route to host$"):
        timm_model(name, in_channels=3, num_classes=10, pretrained=True)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("name", ["a.pth", "a.bin"])
def test_untrusted_checkpoint_runs_no_code(tmp_path, monkeypatch, name):
    """``torch.load`` refuses to unpickle even if a library passes ``weights_only=False``."""
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Hostile()}, name)
    with pytest.raises(UnpicklingError):
        torch.load(name, weights_only=False)
    with pytest.raises(ConfigError, match=rf"model\.checkpoint_path={name} cannot be loaded: "):
        timm_model("resnet10t", in_channels=1, num_classes=7, checkpoint_path=name)
    for address in ("hf-hub:someone/model", "local-dir:."):
        with pytest.raises(ConfigError, match="timm has no classifier of this name"):
            timm_model(address, in_channels=1, num_classes=7, pretrained=True)
    assert not (tmp_path / "executed").exists()
