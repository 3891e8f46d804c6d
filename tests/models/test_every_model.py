"""Every model in ``conf/model``: size, output shape, and a gradient for every parameter."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from core.errors import ConfigError
from models.build import build_model, num_parameters, weights_hash
from models.lightcnn import LightCNN
from models.outputs import prediction_of

CPU = torch.device("cpu")
SPEC = SimpleNamespace(
    name="any", in_channels=3, num_classes=10, image_size=(32, 32), vocab_size=50,
    context_length=64, in_features=7, num_outputs=2,
)  # fmt: skip
IMAGES, TOKENS = ((2, 3, 32, 32),), torch.arange(32).view(2, 16)
MODELS = {  # option: inputs or their shapes, output shape, number of trainable parameters
    "lightcnn": (IMAGES, (2, 10), 51_530),
    "customcnn": (IMAGES, (2, 10), 2_122_186),  # of which Linear(64*8*8, 512) has 2,097,664
    "resnet18": (IMAGES, (2, 10), 11_173_962),
    "resnet34": (IMAGES, (2, 10), 21_282_122),
    "resnet50": (IMAGES, (2, 10), 23_520_842),
    "speednet": (IMAGES, (2, 10), 1_971_352),
    "vit": (IMAGES, (2, 10), 207_946),
    "segmentation_unet": (IMAGES, (2, 10, 32, 32), 125_514),
    "mlp": (((2, 7),), (2, 2), 4_802),
    "transformer": ((TOKENS,), (2, 16, 50), 793_984),
    "lstm": ((TOKENS,), (2, 16, 50), 788_970),
    "gru": ((TOKENS,), (2, 16, 50), 789_990),
    "vae": (IMAGES, (2, 3, 32, 32), 269_475),
    "unet": ((*IMAGES, torch.tensor([3, 60])), (2, 3, 32, 32), 390_867),
}


def build_option(option, composed, spec=SPEC):
    torch.manual_seed(0)
    return build_model(composed(f"model={option}")["model"], spec, CPU)


@pytest.mark.parametrize("option", MODELS)
def test_num_parameters_output_shape_and_gradients(option, composed):
    inputs_or_shapes, shape, count = MODELS[option]
    model = build_option(option, composed)
    assert num_parameters(model) == count
    with torch.no_grad():  # zero-initialized layers would block gradients
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    inputs = (
        each if isinstance(each, torch.Tensor) else torch.randn(each) for each in inputs_or_shapes
    )
    output = prediction_of(model(*inputs))
    assert output.shape == shape
    output.square().mean().backward()
    trained = [(name, p.grad) for name, p in model.named_parameters() if p.requires_grad]
    assert [name for name, grad in trained if grad is None or not grad.abs().sum() > 0] == []


@pytest.mark.parametrize("option", ["transformer", "lstm", "gru"])
def test_untrained_language_model_predicts_uniformly(option, composed):
    model = build_option(option, composed, SimpleNamespace(**{**vars(SPEC), "vocab_size": 500}))
    text = torch.randint(500, (8, 65))
    loss = F.cross_entropy(model(text[:, :-1])[0].flatten(0, 1), text[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(500), abs=0.1)


def test_lightcnn_fits_embedded_devices():
    assert num_parameters(LightCNN(in_channels=1, num_classes=10, image_size=(28, 28))) < 100_000


@pytest.mark.parametrize(
    ("option", "settings", "message"),
    [
        ("lightcnn", {"image_size": (30, 28)}, "image_size 30x28 must be a multiple of 4"),
        ("customcnn", {"image_size": (30, 28)}, "image_size 30x28 must be a multiple of 4"),
        ("dcgan", {"image_size": (30, 30)}, "image_size 30x30 must be a multiple of 4"),
        ("unet", {"image_size": (30, 30)}, "30x30 must be a multiple of 4 for the 3 levels"),
        ("unet", {"width": 12}, "width=12 must be a multiple of 8"),
        ("unet", {"sample_steps": 1001}, "sample_steps=1001 must be in 1..num_steps=1000"),
        ("unet", {"sample_steps": 0}, "sample_steps=0 must be in 1..num_steps=1000"),
        ("unet", {"prediction": "image"}, "prediction=image should be 'velocity' or 'noise'"),
        ("vit", {"patch_size": 5}, "image_size 32x32 must be a multiple of 5, the patch_size"),
        ("vit", {"num_heads": 3}, "num_heads=3 must divide width=64"),
        ("resnet18", {"stem": "large"}, "stem=large should be 'small' or 'imagenet'"),
        ("resnet18", {"depth": 20}, "depth=20 should be 18, 34 or 50"),
        ("transformer", {"width": 12}, "width=12 must be a multiple of 2 . num_heads=8"),
        (
            "transformer",
            {"positions": "learned"},
            "positions=learned should be 'rotary' or 'alibi'",
        ),
        ("lstm", {"cell": "rnn"}, "cell=rnn should be 'lstm' or 'gru'"),
    ],
)
def test_invalid_model_settings_are_rejected(option, settings, message, composed):
    with pytest.raises(ConfigError, match=rf"^model(: \w+ refused its settings: .*|\.){message}"):
        build_model(composed(f"model={option}")["model"] | settings, SPEC, CPU)


def test_model_with_sparse_gradients_is_rejected():
    node = {"_target_": "torch.nn.Embedding", "num_embeddings": 3, "embedding_dim": 2}
    assert build_model(node, SPEC, CPU).weight.shape == (3, 2)
    with pytest.raises(ConfigError, match="makes sparse gradients"):
        build_model({**node, "sparse": True}, SPEC, CPU)


def test_weights_hash_detects_a_small_change():
    weights = LightCNN(1, 10, (28, 28)).state_dict()
    same = {name: value.clone() for name, value in weights.items()}
    assert weights_hash(weights) == weights_hash(same)
    same["classifier.bias"][0] += 1e-6
    assert weights_hash(weights) != weights_hash(same)


@pytest.mark.parametrize(("width", "is_channels_last"), [(4, False), (8, False), (16, True)])
def test_channels_last_is_skipped_if_onednn_overflows(width, is_channels_last):
    settings = {
        "_target_": "models.segmentation_unet.SegmentationUNet",
        "in_channels": 3, "num_classes": 2, "image_size": [8, 8], "widths": [width, width],
    }  # fmt: skip
    model = build_model(settings, SPEC, CPU, channels_last=True)
    kernel = next(model.parameters())
    assert kernel.shape[2:] == (3, 3), "a 1x1 kernel is contiguous in both formats"
    assert kernel.is_contiguous(memory_format=torch.channels_last) == is_channels_last
