"""Every file in ``conf/`` composes, and what it names can be built."""

from itertools import zip_longest
from pathlib import Path

import pytest

from core.instantiate import resolve
from core.schema import check_settings
from optim.build import build_schedule
from optim.schedules import Horizon

CONF = Path(__file__).parents[1] / "conf"
MANDATORY = {
    "data=image_folder": ["data.root=images"],
    "data=huggingface": ["data.path=saved"],
    "data=huggingface_text": ["data.path=saved"],
    "data=npz": ["data.path=arrays.npz"],
    "data=torchvision": ["data.name=FashionMNIST"],
    "data=webdataset": ["data.root=shards"],
    "data=text_csv": ["data.path=train.csv"],
    "data=mask_folder": ["data.root=scans"],
    "data=table_csv": ["data.path=train.csv", "data.target=price"],
    "model=bert": ["data.path=train.csv"],
    "experiment=bert_finetune": ["data.path=train.csv"],
    "experiment=bert_finetune_short": ["data.path=train.csv"],
    "model=timm": ["model.name=resnet10t"],
    "optimizer=timm": ["optimizer.name=adopt"],
    "optimizer=pytorch_optimizer": ["optimizer.name=SOAP"],
    "scheduler=torch": ["scheduler.name=StepLR", "+scheduler.step_size=5"],
    "experiment=imagenet_resnet50": ["data.root=imagenet"],
    "data=text_file": ["data.path=book.txt"],
    "experiment=shakespeare_char": ["data.path=book.txt"],
}


def options(group: str) -> list[str]:
    return sorted(f.stem for f in (CONF / group).glob("*.yaml") if not f.stem.startswith("_"))


def targets(node: object, where: str = "config") -> list[tuple[str, str]]:
    """Every ``_target_`` in a config, with its place."""
    if isinstance(node, list):
        return [found for i, item in enumerate(node) for found in targets(item, f"{where}[{i}]")]
    if not isinstance(node, dict):
        return []
    own = [(node["_target_"], f"{where}._target_")] if "_target_" in node else []
    return own + [found for key, item in node.items() for found in targets(item, f"{where}.{key}")]


ALONE = ("model", "optim", "experiment")  # they choose other groups' options
TOGETHER = ("data", "optimizer", "scheduler", "objective", "trainer", "debug")
CHOICES = [(f"{group}={name}",) for group in ALONE for name in options(group)]
CHOICES += [
    tuple(f"{group}={name}" for group, name in zip(TOGETHER, names, strict=True) if name)
    for names in zip_longest(*(options(group) for group in TOGETHER))
]


@pytest.mark.parametrize("choices", CHOICES, ids=" ".join)
def test_option_composes_and_every_target_resolves(choices, composed):
    given = [override for choice in choices for override in MANDATORY.get(choice, [])]
    config = composed(*choices, *given)
    check_settings(config)
    assert targets(config)
    for target, where in targets(config):
        assert callable(resolve(target, where))


@pytest.mark.parametrize("name", options("scheduler"))
def test_schedule_builds_and_stays_finite(name, composed):
    choice = f"scheduler={name}"
    node = composed(choice, *MANDATORY.get(choice, []))["scheduler"]
    schedule = build_schedule(node, Horizon(300, 20))
    rates = [schedule(step, 0.1) for step in range(300)]
    assert all(0 <= rate <= 0.1 + 1e-12 for rate in rates)
    assert max(rates) == pytest.approx(0.1, rel=0.02)


def test_recipe_picks_and_the_command_line_wins(composed):
    recipe = composed("optim=sgd_step")
    assert recipe["optimizer"]["_target_"] == "torch.optim.SGD"
    assert recipe["scheduler"]["_target_"] == "optim.schedules.step_decay"
    mixed = composed("optim=sgd_step", "optimizer=adam", "scheduler=constant", "optimizer.lr=0.5")
    assert mixed["optimizer"]["_target_"] == "torch.optim.Adam"
    assert mixed["optimizer"]["lr"] == 0.5
    assert mixed["scheduler"]["_target_"] == "optim.schedules.constant"


@pytest.mark.parametrize("name", sorted({*options("experiment")} - {"mnist_dcgan"}))
def test_a_recipe_on_the_command_line_wins_over_the_experiments(name, composed):
    """So that ``-m experiment=... optim=a,b`` compares what it says; a GAN's phases have none."""
    config = composed(f"experiment={name}", "optim=lion_warmup_cosine", "++data.path=any.txt")
    assert config["optimizer"]["_target_"] == "timm.optim.Lion"
    assert config["scheduler"]["warmup_fraction"] is not None


def test_model_picks_its_data_and_recipe_and_the_command_line_wins(composed):
    assert "mnist5k" in composed("model=lightcnn")["data"]["_target_"]
    chosen = composed("model=lightcnn", "optim=adam_constant")
    assert chosen["optimizer"]["_target_"] == "torch.optim.Adam"


def test_cifar10_customcnn_is_the_tutorial_recipe(composed):
    config = composed("experiment=cifar10_customcnn")
    assert config["optimizer"] == {
        "_target_": "torch.optim.SGD",
        "lr": 0.01,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 5e-4,
        "fused": True,
    }
    assert config["param_groups"] == {
        "decay_norms_and_biases": True,
        "layer_decay": None,
        "not_hidden": [],
        "rules": [],
    }
    assert config["scheduler"] == {
        "_target_": "optim.schedules.step_decay",
        "step_size": 30,
        "gamma": 0.1,
    }
    assert config["trainer"]["max_epochs"] == 100
    assert config["trainer"]["clip_grad_norm"] is None
    data = config["data"]
    assert data["_target_"] == "data.torchvision_sets.cifar10"
    assert (data["batch_size"], data["augment"]) == (64, [])
    assert data["mean"] == data["std"] == [0.5, 0.5, 0.5]


def test_bert_finetune_is_the_usual_recipe(composed):
    config = composed("experiment=bert_finetune", "data.path=train.csv")
    optimizer, schedule = config["optimizer"], config["scheduler"]
    assert optimizer["_target_"] == "torch.optim.AdamW"
    assert (optimizer["lr"], optimizer["betas"]) == (5e-5, [0.9, 0.999])
    assert optimizer["weight_decay"] == 0.01
    assert schedule["_target_"] == "optim.schedules.constant"
    assert (schedule["warmup_steps"], schedule["start_factor"]) == (1000, 0.01)
    assert config["trainer"]["max_steps"] > 1000  # a warm-up beyond the horizon is an error
