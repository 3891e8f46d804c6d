"""``param_groups.rules``: lr_scale, weight_decay and freeze by parameter name."""

import pytest
import timm
import torch
from torch import nn

from core.errors import ConfigError, Interrupted
from optim.build import build_optimizer
from optim.param_groups import layer_scales, parameter_groups
from optim.param_rules import freeze, rules_by_id
from tests.trainer.interrupting import (
    SHORT,
    assert_same_run,
    checkpoint_of,
    events,
    signal_at,
)

GROUPING = {"decay_norms_and_biases": False, "layer_decay": None}
ADAMW = {"_target_": "torch.optim.AdamW", "lr": 1.0, "weight_decay": 0.1}


class Net(nn.Module):
    """A backbone with a batch norm, one without parameters, and a head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.plain = nn.BatchNorm1d(4, affine=False)
        self.embed = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6)
        self.head.weight = self.embed.weight


def test_first_matching_rule_wins():
    net = Net()
    rules = [
        {"match": "bias$", "weight_decay": 0.3},
        {"match": "^head", "lr_scale": 10},
        {"match": "0"},
        {"match": "backbone", "lr_scale": 0.5, "weight_decay": 0.0},
    ]
    optimizer = build_optimizer(ADAMW, net, {**GROUPING, "rules": rules})
    found = {
        name: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for name in group["param_names"]
    }
    assert found == {
        "backbone.0.weight": (1.0, 0.1),
        "backbone.0.bias": (1.0, 0.3),
        "backbone.1.weight": (0.5, 0.0),
        "backbone.1.bias": (1.0, 0.3),
        "embed.weight": (10.0, 0.1),  # tied to head.weight
        "head.bias": (1.0, 0.3),
    }
    assert optimizer.param_groups[0]["lr"] == 1.0  # the first group's rate is logged


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [{"match": "backbon$"}],
            r"rules\[0\]\.match=backbon\$ matches no .* backbone\.0\.weight.*head\.bias$",
        ),
        ([{"match": "."}, {"match": "head"}], r"rules\[1\]\.match=head has no effect"),
        ([{"match": "("}], r"rules\[0\]\.match=\(: missing"),
        (
            [{"match": "x", "freeze": True, "lr_scale": 2}],
            r"rules\[0\]: freeze excludes lr_scale and",
        ),
    ],
)
def test_invalid_or_unused_rules_are_rejected(rules, message):
    with pytest.raises(ConfigError, match=rf"^param_groups\.{message}"):
        rules_by_id(Net(), rules)


def test_decay_rule_for_optimizer_without_decay_is_rejected():
    adam = {"_target_": "torch.optim.Adam", "lr": 1.0}
    rules = [{"match": "head", "weight_decay": 0.1}]
    with pytest.raises(ConfigError, match="optimizer has no weight_decay to change"):
        build_optimizer(adam, Net(), {**GROUPING, "rules": rules})


def test_frozen_parameters_and_norms():
    net = Net()
    rules = [{"match": "backbone.1.bias"}, {"match": "backbone|plain", "freeze": True}]
    assert freeze(net, rules) == [net.plain]
    trained = [name for name, p in net.named_parameters() if p.requires_grad]
    assert trained == ["backbone.1.bias", "embed.weight", "head.bias"]
    assert freeze(net, [{"match": "backbone", "freeze": True}]) == [net.backbone[1]]
    (group, _) = parameter_groups(net, 0.1, 1.0, **GROUPING)
    assert group["param_names"] == ["embed.weight"]


def test_plain_torch_muon_accepts_only_matrices():
    muon = {"_target_": "torch.optim.Muon", "lr": 1.0}
    with pytest.raises(ConfigError, match="takes only matrices: use optimizer=torch_muon"):
        build_optimizer(muon, Net(), GROUPING)
    net = Net()
    freeze(net, [{"match": r"bias|backbone\.1", "freeze": True}])
    names = [group["param_names"] for group in build_optimizer(muon, net, GROUPING).param_groups]
    assert names == [["backbone.0.weight", "embed.weight"]]


def test_layers_follow_timm_group_matcher():
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=5)
    scales = layer_scales(model, 0.5)
    assert [scales[name] for name in ("pos_embed", "blocks.0.attn.qkv.weight")] == [0.125, 0.25]
    assert [scales[name] for name in ("blocks.1.norm1.bias", "norm.bias")] == [0.5, 0.5]
    assert scales["head.weight"] == 1.0


def test_run_with_rules_resumes_bit_identical(train, few_digits, tmp_path):
    """Frozen batch norms keep their statistics, and both learning rates are logged."""
    rules = "[{match:'^classifier',lr_scale:10},{match:'features.[0-2].',freeze:true}]"
    overrides = (*SHORT, "trainer.ema_decay=0.5", f"param_groups.rules={rules}")
    uninterrupted = train(*overrides)
    with signal_at(6), pytest.raises(Interrupted):
        train(*overrides, run_dir=tmp_path / "resumed")
    resumed = train(*overrides, "resume=auto", run_dir=tmp_path / "resumed")
    assert_same_run(uninterrupted, resumed)
    content = checkpoint_of(uninterrupted)
    kernel = "features.2.conv.weight"
    for weights in (content["model"], content["ema"]):
        assert weights["features.0.norm.num_batches_tracked"] == 0
        assert weights["features.0.norm.running_mean"].abs().sum() == 0
        assert weights["features.5.pointwise.norm.num_batches_tracked"] == 9
        assert torch.equal(weights[kernel], content["model"][kernel])
    rates = [event for event in events(uninterrupted) if "optim/lr" in event]
    assert len(rates) == 4
    assert all(event["optim/lr_x10"] == pytest.approx(10 * event["optim/lr"]) for event in rates)
