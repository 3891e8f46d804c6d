"""Every file in ``conf/`` composes, and every ``_target_`` can be resolved."""

from importlib import import_module
from itertools import zip_longest
from pathlib import Path

import pytest

from core.instantiate import resolve
from core.schema import check_settings
from optim.build import build_schedule
from optim.schedules import Horizon
from tests.conftest import ROOT

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
    """Every ``_target_`` in a config, with its dotted name."""
    if isinstance(node, list):
        return [found for i, item in enumerate(node) for found in targets(item, f"{where}[{i}]")]
    if not isinstance(node, dict):
        return []
    own = [(node["_target_"], f"{where}._target_")] if "_target_" in node else []
    return own + [found for key, item in node.items() for found in targets(item, f"{where}.{key}")]


ALONE = ("model", "optim", "experiment")  # they choose options of other groups
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


@pytest.mark.parametrize("name", sorted({*options("experiment")} - {"mnist_dcgan"}))
def test_recipe_on_the_command_line_overrides_the_experiment(name, composed):
    """So ``-m experiment=... optim=a,b`` compares those recipes; the phases of a GAN have none."""
    config = composed(f"experiment={name}", "optim=lion_warmup_cosine", "++data.path=any.txt")
    assert config["optimizer"]["_target_"] == "timm.optim.Lion"
    assert config["scheduler"]["warmup_fraction"] is not None


def test_command_line_overrides_recipe_and_model(composed):
    mixed = composed("optim=sgd_step", "optimizer=adam", "scheduler=constant", "optimizer.lr=0.5")
    assert mixed["optimizer"]["_target_"] == "torch.optim.Adam"
    assert mixed["optimizer"]["lr"] == 0.5
    assert mixed["scheduler"]["_target_"] == "optim.schedules.constant"
    chosen = composed("model=lightcnn", "optim=adam_constant")
    assert "mnist5k" in chosen["data"]["_target_"]
    assert chosen["optimizer"]["_target_"] == "torch.optim.Adam"


SGD = "optimizer._target_=torch.optim.SGD optimizer.momentum=0.9 optimizer.nesterov=false"
COSINE = "scheduler._target_=optim.schedules.cosine scheduler.eta_min=0.0"
RECIPES = {
    "cifar10_customcnn": f"{SGD} optimizer.lr=0.01 optimizer.weight_decay=5e-4"
    " param_groups.decay_norms_and_biases=true param_groups.layer_decay=null"
    " scheduler._target_=optim.schedules.step_decay scheduler.step_size=30 scheduler.gamma=0.1"
    " trainer.max_epochs=100 trainer.clip_grad_norm=null data.batch_size=64 data.augment=[]"
    " data._target_=data.torchvision_sets.cifar10 data.mean=[0.5,0.5,0.5] data.std=[0.5,0.5,0.5]",
    "cifar10_resnet18": f"{SGD} optimizer.lr=0.1 optimizer.weight_decay=5e-4 {COSINE}"
    " trainer.max_epochs=200 model.depth=18 model.stem=small data.batch_size=128",
    "imagenet_resnet50": f"{SGD} optimizer.lr=0.1 optimizer.weight_decay=1e-4 {COSINE}"
    " trainer.max_epochs=90 model.depth=50 model.stem=imagenet data.batch_size=256",
    "bert_finetune": "optimizer._target_=torch.optim.AdamW optimizer.lr=5e-5"
    " optimizer.betas=[0.9,0.999] optimizer.weight_decay=0.01"
    " scheduler._target_=optim.schedules.constant scheduler.warmup_steps=1000"
    " scheduler.start_factor=0.01",
}


@pytest.mark.parametrize("name", RECIPES)
def test_experiments_use_the_published_recipes(name, composed):
    """Choosing the same recipe on the command line changes nothing."""
    choice = f"experiment={name}"
    given = MANDATORY.get(choice, [])
    assert composed(choice, *given, *RECIPES[name].split()) == composed(choice, *given)


def test_gpu_benchmark_configs_compose(composed, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    gpu = import_module("gpu")
    assert len(gpu.FAMILIES) == 9
    for overrides in gpu.FAMILIES.values():
        check_settings(composed(*overrides, "trainer.cuda_graph=true"))
