"""``instantiate`` builds allowed targets only, and explains wrong settings."""

import math
import sys

import pytest
import torch

from core.errors import ConfigError
from core.instantiate import instantiate, resolve

SYSTEM = {"_target_": "os.system"}
FORBIDDEN = """
    os.system posix.system subprocess.Popen subprocess.run builtins.eval builtins.open getattr
    builtins.getattr builtins.__import__ importlib.import_module functools.partial pickle.load
    logging.os.system torch.load torch.hub.load torch.nn.os.system torch.optim.torch.load
    torch.nn.modules.module.functools.partial torch.nn.modules.module.torch.load
    torch.utils.cpp_extension.load torch.nn.Module.__init__ torch.nn.functional.relu
    data.mnist5k.Path data.mnist5k.importlib.util data.mnist5k.mnist5k.__globals__
    data.cache.os.system data.cache.torch.load data.cache.cached_tensors data.__builtins__.eval
    data.torchvision_sets.read_set data.image_folder.list_files metrics.fid.default_extractor
    models.build.torch.load models.timm_model.get_close_matches models.blocks._private
    optim.build.inspect.getsource optim.build.instantiate trainer.distributed.launch.launch
    trainer.checkpoint.load hydra.utils.instantiate hydra.utils.get_method train.main
    datafoo.mnist5k.mnist5k data.splits.IterableDataset data.splits.ABC
    objectives.classification.F models.timm_model.Sequence
"""


@pytest.mark.parametrize("target", [*FORBIDDEN.split(), "", None, 7])
def test_targets_outside_allowed_packages_are_rejected(target):
    """Opening an untrusted run directory must not execute what its config names."""
    with pytest.raises(ConfigError, match=r"_target_=.*(not allowed|there is no module)"):
        instantiate({"_target_": target}, "model")


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "models.blocks.Residual", "in_channels": SYSTEM, "out_channels": 8},
        {"layers": [1, [SYSTEM]]},
        {**SYSTEM, "_partial_": True},
    ],
    ids=["nested", "in a list", "partial"],
)
def test_nested_forbidden_target_is_rejected(node):
    with pytest.raises(ConfigError, match=r"_target_=os\.system is not allowed"):
        instantiate(node, "model")


def test_builds_nested_targets_and_partials():
    node = {
        "_target_": "torch.nn.TransformerEncoder",
        "num_layers": 1,
        "encoder_layer": {"_target_": "torch.nn.TransformerEncoderLayer", "d_model": 8, "nhead": 2},
    }
    encoder = instantiate(node, "model", enable_nested_tensor=False)
    assert encoder(torch.zeros(1, 3, 8)).shape == (1, 3, 8)
    partial = instantiate(
        {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5}, "optimizer"
    )
    assert partial([torch.nn.Parameter(torch.zeros(1))]).defaults["lr"] == 0.5


def test_unknown_setting_suggests_the_nearest():
    node = {"_target_": "models.blocks.Residual", "in_channel": 8, "out_channels": 8}
    with pytest.raises(ConfigError, match=r"model\.in_channel: .* did you mean model\.in_channels"):
        instantiate(node, "model")


def test_leftover_settings_of_another_target_are_explained():
    node = {"_target_": "torch.nn.ReLU", "betas": [0.9, 0.95], "eps": 1e-8}
    with pytest.raises(
        ConfigError, match=r"another _target_, add ~optimizer\.betas ~optimizer\.eps"
    ):
        instantiate(node, "optimizer")


def test_leftover_null_setting_is_explained():
    """Hydra treats a null setting as missing and cannot delete it; the message sets it first."""
    with pytest.raises(ConfigError, match=r"objective.weights=0 ~objective.weights ~objective.x$"):
        instantiate({"_target_": "torch.nn.Flatten", "weights": None, "x": 1}, "objective")


def test_missing_setting_is_named():
    with pytest.raises(ConfigError, match=r"^model: Residual refused .*'out_channels'"):
        instantiate({"_target_": "models.blocks.Residual", "in_channels": 8}, "model")


@pytest.mark.parametrize("value", ["abc", True, 1.5, None])
def test_wrong_type_is_named(value):
    node = {"_target_": "models.blocks.Residual", "in_channels": value, "out_channels": 8}
    with pytest.raises(ConfigError, match=r"model\.in_channels="):
        instantiate(node, "model")


SCHEDULE = {"_target_": "optim.schedules.wsd", "_partial_": True}
SET_BY_PROGRAM = {"later": ("step", "base_lr"), "horizon": None}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("decay_fraction", 1.5, "less than or equal to 1"),
        ("decay_fraction", math.nan, "less than or equal to 1"),
        ("decay_fraction", "0.5", "a number"),
        ("decay_fraction", None, "a number"),
        ("shape", "round", "'linear', 'cosine' or '1-sqrt'"),
        ("warmup_steps", -1, "greater than or equal to 0"),
        ("warmup_steps", 1.5, "a valid integer"),
        ("warmup_steps", "5", "a valid integer"),
        ("warmup_steps", True, "a valid integer"),
    ],
)
def test_annotated_arguments_are_checked(key, value, message):
    with pytest.raises(ConfigError, match=rf"^scheduler\.{key}={value} should be {message}"):
        instantiate({**SCHEDULE, key: value}, "scheduler", **SET_BY_PROGRAM)


def test_valid_annotated_arguments_are_passed_on():
    valid = {"warmup_steps": 1e3, "shape": "linear", "decay_fraction": 0}
    for settings in (valid, {**valid, "warmup_steps": None}):
        schedule = instantiate({**SCHEDULE, **settings}, "scheduler", **SET_BY_PROGRAM)
        assert schedule.keywords == {**settings, "horizon": None}


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("optim.muon.Muon", "ns_steps"),
        ("data.text.corpus", "lanes"),
        ("objectives.truncated_backpropagation.TruncatedBackpropagation", "lanes"),
    ],
)
def test_whole_floats_become_integers(target, key):
    """For arguments annotated ``Count``, ``int | None`` and ``int``."""
    built = instantiate({"_target_": target, "_partial_": True, key: 1e3}, "node")
    assert type(built.keywords[key]) is int


def test_refusal_has_a_reason():
    node = {"_target_": "optim.muon.Muon", "_partial_": True, "betas": "fast"}
    with pytest.raises(ConfigError, match=r"^optimizer\.betas=fast is refused: \S"):
        instantiate(node, "optimizer")


def test_argument_set_by_the_program_is_rejected():
    node = {"_target_": "torch.optim.SGD", "params": [], "lr": 0.1}
    with pytest.raises(ConfigError, match=r"optimizer\.params is set by the program"):
        instantiate(node, "optimizer", params=[torch.nn.Parameter(torch.zeros(1))])


@pytest.mark.parametrize(
    ("target", "hint"),
    [("models.lightcnn.LigthCNN", "LightCNN"), ("models.lightcn.LightCNN", "no module")],
)
def test_misspelt_target_is_explained(target, hint):
    with pytest.raises(ConfigError, match=hint):
        resolve(target, "model._target_")


def test_constructor_error_becomes_one_line():
    node = {"_target_": "models.lightcnn.LightCNN", "in_channels": 1, "num_classes": 10}
    with pytest.raises(ConfigError, match="model: LightCNN refused its settings: image_size 30x28"):
        instantiate({**node, "image_size": [30, 28]}, "model")


MYLAB = """
from typing import Annotated, Any
from torch.utils.data import IterableDataset
from torchvision.models import DenseNet, densenet121
from torchvision.ops import nms
from pydantic import Field

class Net:
    pass

class Head:
    def __init__(self, net: Annotated[Net, "N C", {"any": "network"}]):
        self.net = net

class Described:
    def __init__(self, net: Annotated[Net, Field(description="network")]):
        self.net = net

def build(width):
    return Net()

def write(path) -> str:
    raise AssertionError
"""


@pytest.fixture
def mylab(tmp_path, monkeypatch):
    """A user's package on ``sys.path`` that ``TRAIN_PACKAGES`` allows."""
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "nets.py").write_text(MYLAB)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mylab.nets", raising=False)
    monkeypatch.setenv("TRAIN_PACKAGES", "other, mylab")


@pytest.mark.parametrize("name", ["Net", "build", "DenseNet", "densenet121"])
def test_train_packages_are_allowed(mylab, monkeypatch, name):
    """Classes, functions without a return annotation, and names imported by the module."""
    assert resolve(f"mylab.nets.{name}", "model._target_").__name__ == name
    monkeypatch.setenv("TRAIN_PACKAGES", "")
    hints = rf"import it in .* models/ .*models\.FILE\.{name}.*TRAIN_PACKAGES=mylab python"
    with pytest.raises(ConfigError, match=rf"is not allowed.*{hints}"):
        resolve(f"mylab.nets.{name}", "model._target_")


@pytest.mark.parametrize("name", ["Head", "Described"])
def test_annotations_that_pydantic_does_not_know_are_ignored(mylab, name):
    head = instantiate(
        {"_target_": f"mylab.nets.{name}", "net": {"_target_": "mylab.nets.Net"}}, "model"
    )
    assert type(head.net).__name__ == "Net"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("write", "not str"),
        ("nms", "optim/ .*TRAIN_PACKAGES=torchvision"),
        ("IterableDataset", "TRAIN_PACKAGES=torch"),
        ("Any", "TRAIN_PACKAGES=typing"),
    ],
)
def test_unsuitable_objects_of_train_packages_are_rejected(mylab, name, message):
    with pytest.raises(ConfigError, match=rf"is not allowed.*{message}"):
        resolve(f"mylab.nets.{name}", "phases.train.optimizer._target_")
