"""The schema rejects a config with one line that names the setting and the valid values."""

import pytest

from core.errors import ConfigError
from core.schema import check_settings

MISTAKES = [
    ("trainer.max_epochs=abc", "trainer.max_epochs=abc should be a valid integer"),
    ("trainer.max_epochs=1.5", "trainer.max_epochs=1.5 should be a valid integer"),
    ("trainer.max_epochs=true", "trainer.max_epochs=True should be a valid integer"),
    ("trainer.max_epochs='3'", "trainer.max_epochs=3 should be a valid integer"),
    ("trainer.devices=x", "trainer.devices=x should be a valid integer or be 'auto'"),
    ("trainer.test=3", "trainer.test=3 should be a valid boolean"),
    ("trainer.clip_grad_norm=0", "trainer.clip_grad_norm=0 should be greater than 0"),
    ("trainer.clip_grad_value=inf", "trainer.clip_grad_value=inf should be a finite number"),
    ("trainer.clip_grad_value=nan", "trainer.clip_grad_value=nan should be .* number"),
    ("trainer.max_restarts=-1", "trainer.max_restarts=-1 should be .* 0"),
    ("param_groups.layer_decay=0", "param_groups.layer_decay=0 should be greater than 0"),
    ("param_groups.layer_decay=1.5", "param_groups.layer_decay=1.5 should be less than or .* 1"),
    ("wandb.tags=[1.5]", "wandb.tags.0=1.5 should be a valid string or be a valid integer"),
    ("wandb=null", "wandb=None should be an object"),
    ("+phases.train=3", "phases.train=3 should be an object"),
    (
        "model=dcgan phases.generator.clip_grad_norm=x",
        "phases.generator.clip_grad_norm=x should be a valid number",
    ),
    ("monitor=loss", r"monitor=loss should match pattern '\^val"),
    ("~trainer.test", "trainer.test is missing"),
    ("+trainer.max_epoch=3", "unknown setting trainer.max_epoch: did you mean trainer.max_epochs"),
    (
        "param_groups.rules=[{match:'.',lr_scal:2}]",
        "unknown setting param_groups.rules.0.lr_scal: did you mean param_groups.rules.0.lr_scale",
    ),
    ("+trainer.lrr=1", "unknown setting trainer.lrr: did you mean optimizer.lr"),
]


@pytest.mark.parametrize(("overrides", "message"), MISTAKES)
def test_mistakes_are_named(overrides, message, composed):
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        check_settings(composed(*overrides.split()))
    assert "\n" not in str(caught.value)


def test_integers_are_accepted_as_floats(composed):
    assert check_settings(composed("trainer.target=1")).target == 1
