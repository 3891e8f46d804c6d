"""Parameter groups: layer-wise learning-rate decay, and parameters without weight decay."""

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
    """Positions, an embedding, three blocks and a head, as in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(2))
        self.embed = nn.Linear(2, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3))
        self.head = nn.Linear(4, 2)


def test_layer_scales_decrease_with_depth():
    scales = layer_scales(Stack(), 0.5)
    assert scales == {
        "positions": 0.0625,
        "embed.weight": 0.0625,
        "embed.bias": 0.0625,
        **{f"blocks.{i}.0.{p}": 0.5 ** (3 - i) for i in range(3) for p in ("weight", "bias")},
        "head.weight": 1.0,
        "head.bias": 1.0,
    }


def test_frozen_layers_are_ignored_by_layer_decay():
    model = Stack()
    model.frozen = nn.ModuleList([nn.Linear(40, 40) for _ in range(9)]).requires_grad_(False)
    scales = layer_scales(model, 0.5)
    assert scales["blocks.2.0.weight"] == 0.5
    assert scales["embed.weight"] == 0.0625
    model.blocks.requires_grad_(False)
    with pytest.raises(ConfigError, match="no numbered layers to train"):
        layer_scales(model, 0.5)


def test_bert_layer_scales_and_undecayed_positions(tiny_bert):
    model = bert(str(tiny_bert), None, 2, 16, "mean", 0.0)
    assert undecayed_matrices(model) == {"encoder.embeddings.position_embeddings.weight"}
    scales = layer_scales(model, 0.5)
    assert scales["encoder.embeddings.word_embeddings.weight"] == 0.125
    assert scales["encoder.encoder.layer.0.attention.self.query.weight"] == 0.25
    assert scales["encoder.encoder.layer.1.output.dense.bias"] == 0.5
    assert scales["classifier.weight"] == 1.0


def test_each_parameter_is_in_one_group():
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
    assert groups[0]["lr"] == 2.0  # the first group's rate is logged
    (group,) = parameter_groups(model, 0.1, 2.0, decay_norms_and_biases=True, layer_decay=None)
    assert len(group["params"]) == len(names)
    assert group["weight_decay"] == 0.1


def test_layer_decay_sets_learning_rates_of_groups():
    settings = {"_target_": "torch.optim.AdamW", "lr": 1.0, "weight_decay": 0.0}
    grouping = {"decay_norms_and_biases": True, "layer_decay": 0.5}
    optimizer = build_optimizer(settings, Stack(), grouping)
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.5, 0.25, 0.125, 0.0625]


def test_layer_decay_without_numbered_layers_is_rejected():
    with pytest.raises(ConfigError, match="Linear has no numbered layers"):
        layer_scales(nn.Linear(2, 2), 0.5)


def undecayed_matrices(model: nn.Module) -> set[str]:
    """Return the names of undecayed parameters with at least two dimensions."""
    ids = undecayed(model)
    return {name for name, p in model.named_parameters() if id(p) in ids and p.ndim > 1}


def test_vit_positions_and_class_tokens_are_undecayed():
    ours = VisionTransformer(1, 10, (8, 8), 4, width=8, depth=1, num_heads=2, dropout=0.0)
    assert undecayed_matrices(ours) == {"positions"}
    timm_vit = timm.create_model("vit_tiny_patch16_224")
    assert undecayed_matrices(timm_vit) == {"pos_embed", "cls_token"}
    with torch.device("meta"):  # its 88 million parameters take no memory
        torchvision_vit = vit_b_32()
    assert undecayed_matrices(torchvision_vit) == {"class_token", "encoder.pos_embedding"}


def test_convnext_layer_scale_is_undecayed():
    with torch.device("meta"):
        names = undecayed_matrices(convnext_tiny())
    assert names
    assert all(name.endswith("layer_scale") for name in names)


def test_no_weight_decay_method_of_submodule_is_used():
    class Submodule(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(3, 3))
            self.layer = nn.Linear(3, 1)

        def no_weight_decay(self):
            return {"tabl*"}

    assert undecayed_matrices(nn.Sequential(Submodule())) == {"0.table"}


def test_weights_with_a_single_row_are_decayed():
    assert undecayed_matrices(nn.Sequential(nn.Linear(4, 1), nn.Conv2d(1, 1, 3))) == set()
