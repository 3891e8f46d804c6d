"""``trainer.eval_train_samples``: evaluations on training samples, beside the validation split."""

import pytest
import torch
from torch.nn import functional as F

from core.errors import ConfigError
from core.ranks import Ranks
from data.build import build_data
from models.build import build_model
from tests.trainer.interrupting import SHORT, assert_equal, checkpoint_of, events, summary

pytestmark = pytest.mark.usefixtures("few_digits")
CPU = torch.device("cpu")
NAMES = {"train_eval/loss", "train_eval/accuracy"}
RANDOM_AND_SMOOTHED = (
    "model.dropout=0.2",
    "objective.mixup_alpha=0.2",
    "objective.label_smoothing=0.1",
)


def test_training_is_bit_identical_with_and_without(train):
    overrides = (*SHORT, *RANDOM_AND_SMOOTHED, "trainer.ema_decay=0.9")
    without, measured = train(*overrides), train(*overrides, "trainer.eval_train_samples=6")
    for key in ("model", "ema", "optimizers", "counters", "metrics"):
        assert_equal(checkpoint_of(without)[key], checkpoint_of(measured)[key], key)
    found = events(measured)
    steps = [event["step"] for event in found if event.keys() >= NAMES]
    assert steps == [event["step"] for event in found if "val/loss" in event] == [4, 8, 9]
    plain = [{name: v for name, v in event.items() if name not in NAMES} for event in found]
    assert plain == events(without)
    assert summary(measured)["num_samples"] == summary(without)["num_samples"]


def test_samples_are_evaluated_without_augmentation(train, composed, data_root):
    """Mixing, dropout and label smoothing are off as well."""
    overrides = (*SHORT, *RANDOM_AND_SMOOTHED)
    run_dir = train(*overrides, "trainer.eval_train_samples=210")  # all of them
    config = composed(*overrides, f"data.root={data_root}")
    data = build_data(config["data"], CPU, 0, Ranks(), 1)
    model = build_model(config["model"], data.spec, CPU)
    model.load_state_dict(checkpoint_of(run_dir)["model"])
    images, labels = next(data.prepared("train", [torch.arange(210)]))
    with torch.no_grad():
        logits = model.eval()(images)
    expected = {
        "train_eval/loss": F.cross_entropy(logits, labels).item(),
        "train_eval/accuracy": (logits.argmax(1) == labels).float().mean().item(),
    }
    found = summary(run_dir)
    assert {name: found[name] for name in NAMES} == pytest.approx(expected, rel=1e-4)


def test_samples_are_the_same_for_every_seed(composed, data_root):
    config = composed(f"data.root={data_root}")["data"]
    splits = [build_data(config, CPU, seed, Ranks(), 1, 6).splits for seed in (0, 1)]
    first, second = (split["train_eval"].tensors for split in splits)
    assert all(map(torch.equal, first, second))
    in_training = (splits[0]["train"].tensors[0][:, None] == first[0]).flatten(2).all(2)
    assert in_training.any(0).tolist() == [True] * 6


def test_too_many_samples_are_rejected(train):
    message = r"^trainer\.eval_train_samples=211 should be null or between 1 and the 210 training"
    with pytest.raises(ConfigError, match=message):
        train(*SHORT, "trainer.eval_train_samples=211")
