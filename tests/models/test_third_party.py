"""Third-party models: data sizes under other argument names, outputs of several tensors."""

from collections import namedtuple

import pytest
import torch
from transformers.modeling_outputs import ImageClassifierOutput

from core.errors import ConfigError
from data.splits import ImageSpec
from models.build import fill_from_data
from models.outputs import prediction_of
from objectives.base import check_fit

SPEC = ImageSpec("digits", 1, (28, 32), tuple("0123456789"), (0.5,), (0.5,))
LOGITS, FEATURES = torch.zeros(2, 10), torch.zeros(2, 64)
Outputs = namedtuple("Outputs", "aux logits")  # like torchvision's GoogLeNet in training

NETWORK = """
from torch import nn

class Network(nn.Module):
    def __init__(self, n_classes, size):
        super().__init__()
        self.layer = nn.Linear(size["height"] * size["width"], n_classes)

    def forward(self, x):
        return {"features": x, "logits": self.layer(x.flatten(1))}

def build(n_classes, size):
    return Network(n_classes, size)
"""


class Returning(torch.nn.Linear):
    """A model that returns ``output``."""

    def __init__(self, output):
        super().__init__(1, 1)
        self.output = output

    def forward(self, inputs):
        return self.output


def test_from_data_fills_nested_settings():
    settings = {
        "n_classes": "${from_data:num_classes}",
        "sizes": [3, {"h": "${from_data: height }"}],
    }
    assert fill_from_data(settings, SPEC) == {"n_classes": 10, "sizes": [3, {"h": 28}]}
    assert fill_from_data({"size": "${from_data:image_size}"}, SPEC) == {"size": (28, 32)}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${from_data:vocab_size}", "data=digits has no vocab_size; it has in_channels, "),
        ("${from_data:example}", "has no example"),
        ("a ${from_data:width}", "should stand alone"),
    ],
)
def test_unknown_from_data_attribute_is_rejected(value, message):
    with pytest.raises(ConfigError, match=rf"^model\.x\.y=.*{message}"):
        fill_from_data({"x": {"y": value}}, SPEC)


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS, FEATURES),
        [LOGITS],
        Outputs(FEATURES, LOGITS),
        ImageClassifierOutput(logits=LOGITS, hidden_states=(FEATURES,)),
        {"aux": FEATURES, "out": LOGITS},
    ],
    ids=lambda output: type(output).__name__,
)
def test_prediction_is_found_in_model_output(output):
    assert prediction_of(output) is LOGITS
    check_fit(Returning(output), [LOGITS], (2, 10), "model")


@pytest.mark.parametrize(
    ("output", "description"),
    [
        (FEATURES, r"\(2, 64\) for two samples"),
        ((FEATURES, LOGITS), r"a tuple of Tensor, Tensor, with prediction \(2, 64\)"),
        ({"cls": LOGITS, "box": FEATURES}, "a dict of cls, box for two samples"),
        ((), "a tuple of nothing"),
        (None, "NoneType"),
    ],
)
def test_unsupported_model_output_is_rejected(output, description):
    with pytest.raises(
        ConfigError, match=rf"^model: Returning returns {description}.*tensor of shape \(2, 10\)"
    ):
        check_fit(Returning(output), [LOGITS], (2, 10), "model")


def test_model_factory_of_an_installed_package(command_here, tmp_path, monkeypatch, data_root):
    """TRAIN_PACKAGES allows it in training and prediction; config.yaml keeps ``from_data``."""
    (tmp_path / "thirdparty.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    size = "size:{height:${from_data:height},width:${from_data:width}}"
    model = f"{{_target_:thirdparty.build,n_classes:${{from_data:num_classes}},{size}}}"
    arguments = ("debug=fast", "wandb.mode=disabled", f"data.root={data_root}", "~model")
    run = ("train.py", *arguments, f"+model={model}", "hydra.run.dir=run")
    done = command_here(*run, TRAIN_PACKAGES="thirdparty")
    assert done.returncode == 0, done.stderr
    assert "n_classes: ${from_data:num_classes}" in (tmp_path / "run" / "config.yaml").read_text()
    again = command_here("predict.py", "run", "--test", TRAIN_PACKAGES="thirdparty")
    assert again.stdout.count("as recorded") == 2, again.stderr
    untrusted = command_here("predict.py", "run", "--test")
    assert "thirdparty.build is not allowed" in untrusted.stderr
    wrong = command_here("train.py", *arguments[:-1], "optimizer.lr=${from_data:num_classes}")
    assert "from_data:...} works only in the model's settings" in wrong.stderr
