"""Parameter groups: rates that fall from layer to layer, and what weight decay leaves alone."""

import pytest
import timm
import torch
from torch import nn
from torchvision.models import convnext_tiny, vit_b_32

from core.errors import ConfigError
from models.bert import bert
from models.vit import VisionTransformer
from optim.build import build_optimizer
from optim.param_groups import layer_scales, parameter_groups
from optim.parameter_roles import undecayed


class Stack(nn.Module):
    """Three blocks between an embedding and a head, as Transformers are built."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(2))
        self.embed = nn.Linear(2, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3))
        self.head = nn.Linear(4, 2)


def test_rates_by_depth():
    scales = layer_scales(Stack(), 0.5)
    assert scales == {
        "positions": 0.0625,
        "embed.weight": 0.0625,
        "embed.bias": 0.0625,
        **{f"blocks.{i}.0.{p}": 0.5 ** (3 - i) for i in range(3) for p in ("weight", "bias")},
        "head.weight": 1.0,
        "head.bias": 1.0,
    }


def test_frozen_layers_are_not_counted():
    model = Stack()
    model.frozen = nn.ModuleList([nn.Linear(40, 40) for _ in range(9)]).requires_grad_(False)
    scales = layer_scales(model, 0.5)
    assert scales["blocks.2.0.weight"] == 0.5
    assert scales["embed.weight"] == 0.0625
    model.blocks.requires_grad_(False)
    with pytest.raises(ConfigError, match="no numbered layers to train"):
        layer_scales(model, 0.5)


def test_layers_and_positions_of_an_encoder(tiny_bert):
    model = bert(str(tiny_bert), None, 2, 16, "mean", 0.0)
    assert undecayed_matrices(model) == {"encoder.embeddings.position_embeddings.weight"}
    scales = layer_scales(model, 0.5)
    assert scales["encoder.embeddings.word_embeddings.weight"] == 0.125
    assert scales["encoder.encoder.layer.0.attention.self.query.weight"] == 0.25
    assert scales["encoder.encoder.layer.1.output.dense.bias"] == 0.5
    assert scales["classifier.weight"] == 1.0


def test_every_parameter_is_in_one_group_with_its_rate_and_decay():
    model = Stack()
    groups = parameter_groups(model, 0.1, 2.0, decay_norms_and_biases=False, layer_decay=0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }
    assert sum(len(group["params"]) for group in groups) == len(found) == len(names)
    assert found["head.weight"] == (2.0, 0.1)
    assert found["head.bias"] == (2.0, 0.0)
    assert found["blocks.1.0.weight"] == (0.5, 0.1)
    assert found["positions"] == (0.125, 0.0)
    assert groups[0]["lr"] == 2.0  # the rate that is logged
    (group,) = parameter_groups(model, 0.1, 2.0, decay_norms_and_biases=True, layer_decay=None)
    assert len(group["params"]) == len(names)
    assert group["weight_decay"] == 0.1


def test_the_optimizer_gets_the_rates():
    settings = {"_target_": "torch.optim.AdamW", "lr": 1.0, "weight_decay": 0.0}
    grouping = {"decay_norms_and_biases": True, "layer_decay": 0.5}
    optimizer = build_optimizer(settings, Stack(), grouping)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.5, 0.25, 0.125, 0.0625]


def test_a_model_without_layers():
    with pytest.raises(ConfigError, match="Linear has no numbered layers"):
        layer_scales(nn.Linear(2, 2), 0.5)


def undecayed_matrices(model: nn.Module) -> set[str]:
    """The names of those with two dimensions or more."""
    ids = undecayed(model)
    return {name for name, p in model.named_parameters() if id(p) in ids and p.ndim > 1}


def test_vision_transformers():
    own = VisionTransformer(1, 10, (8, 8), 4, width=8, depth=1, num_heads=2, dropout=0.0)
    assert undecayed_matrices(own) == {"positions"}
    theirs = timm.create_model("vit_tiny_patch16_224")
    assert undecayed_matrices(theirs) == {"pos_embed", "cls_token"}
    with torch.device("meta"):  # without memory for 88 million parameters
        torchvisions = vit_b_32()
    assert undecayed_matrices(torchvisions) == {"class_token", "encoder.pos_embedding"}


def test_layer_scales():
    with torch.device("meta"):
        names = undecayed_matrices(convnext_tiny())
    assert names
    assert all(name.endswith("layer_scale") for name in names)


def test_what_a_part_of_the_model_names():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(3, 3))
            self.layer = nn.Linear(3, 1)

        def no_weight_decay(self):
            return {"tabl*"}

    assert undecayed_matrices(nn.Sequential(Own())) == {"0.table"}


def test_a_weight_with_one_row_is_decayed():
    assert undecayed_matrices(nn.Sequential(nn.Linear(4, 1), nn.Conv2d(1, 1, 3))) == set()
