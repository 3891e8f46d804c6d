"""Classifiers have the sizes that they promise and train as their options stand; recipes."""

import json

import pytest
import torch

from core.errors import ConfigError
from data.splits import ImageSpec
from models.build import build_model, num_parameters, weights_hash
from models.customcnn import CustomCNN
from models.lightcnn import LightCNN

SPEC = ImageSpec("tiny", 1, (28, 28), ("a", "b"), mean=(0.2,), std=(0.4,))


def test_sparse_gradients_are_refused():
    node = {"_target_": "torch.nn.Embedding", "num_embeddings": 3, "embedding_dim": 2}
    assert build_model(node, SPEC, torch.device("cpu")).weight.shape == (3, 2)
    with pytest.raises(ConfigError, match="makes sparse gradients"):
        build_model({**node, "sparse": True}, SPEC, torch.device("cpu"))


def test_lightcnn_fits_embedded_devices():
    model = LightCNN(in_channels=1, num_classes=10, image_size=(28, 28))
    assert num_parameters(model) < 100_000
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_customcnn_is_the_published_one():
    model = CustomCNN(in_channels=3, num_classes=10, image_size=(32, 32))
    linear = model.classifier[0]
    assert (linear.in_features, linear.out_features) == (64 * 8 * 8, 512)
    convolutions = (3 * 9 * 32 + 32) + (32 * 9 * 64 + 64)
    assert num_parameters(model) == convolutions + (4096 * 512 + 512) + (512 * 10 + 10)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("model_class", [LightCNN, CustomCNN])
def test_image_size_that_does_not_halve_twice_is_refused(model_class):
    with pytest.raises(ValueError, match="30x28"):
        model_class(in_channels=1, num_classes=10, image_size=(30, 28))


def test_weights_hash_tells_weights_apart():
    weights = LightCNN(1, 10, (28, 28)).state_dict()
    same = {name: value.clone() for name, value in weights.items()}
    assert weights_hash(weights) == weights_hash(same)
    same["classifier.bias"][0] += 1e-6
    assert weights_hash(weights) != weights_hash(same)


@pytest.mark.parametrize(
    "choice",
    [
        ("model=resnet18", "model.stem=imagenet", "model.zero_init_residual=true"),
        ("model=vit",),
        ("model=timm", "model.name=torchvision/mobilenet_v3_small"),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("few_digits")
def test_trains(choice, train):
    few = ("debug=fast", "data.batch_size=4", "data.eval_batch_size=4")
    run_dir = train(*choice, *few, "trainer.checkpoint=false")
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["test/loss"] > 0


@pytest.mark.parametrize(
    ("choice", "weight_decay", "epochs"),
    [
        (("experiment=imagenet_resnet50", "data.root=imagenet"), 1e-4, 90),
        (("experiment=cifar10_resnet18",), 5e-4, 200),
    ],
)
def test_resnets_have_the_published_recipes(choice, weight_decay, epochs, composed):
    config = composed(*choice)
    sgd = {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": weight_decay}
    assert config["optimizer"]["_target_"] == "torch.optim.SGD"
    assert {key: config["optimizer"][key] for key in sgd} == sgd
    assert config["scheduler"] == {"_target_": "optim.schedules.cosine", "eta_min": 0.0}
    assert config["trainer"]["max_epochs"] == epochs
    is_imagenet = config["model"]["depth"] == 50
    assert config["model"]["stem"] == ("imagenet" if is_imagenet else "small")
    assert config["data"]["batch_size"] == (256 if is_imagenet else 128)
