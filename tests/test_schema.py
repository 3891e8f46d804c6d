"""The check of a composed config: one line that names the setting and what it should be."""

import ast
import inspect

import pytest

from core import schema
from core.errors import ConfigError
from core.schema import check_settings

MISTAKES = [
    ("trainer.max_epochs=abc", "trainer.max_epochs=abc should be a whole number"),
    ("trainer.max_epochs=1.5", "trainer.max_epochs=1.5 should be a whole number"),
    ("trainer.max_epochs=true", "trainer.max_epochs=True should be a whole number"),
    ("trainer.max_epochs='3'", "trainer.max_epochs=3 should be a whole number"),
    ("trainer.devices=x", "trainer.devices=x should be a whole number or 'auto'"),
    ("trainer.test=3", "trainer.test=3 should be true or false"),
    ("trainer.clip_grad_norm=0", "trainer.clip_grad_norm=0 should be greater than 0"),
    ("trainer.clip_grad_value=inf", "trainer.clip_grad_value=inf should be a finite number"),
    ("trainer.clip_grad_value=nan", "trainer.clip_grad_value=nan should be .* number"),
    ("trainer.max_restarts=-1", "trainer.max_restarts=-1 should be .* 0"),
    ("wandb.tags=x", "wandb.tags=x should be a list"),
    ("wandb.tags=[1.5]", r"wandb.tags\[0\]=1.5 should be a string or a whole number"),
    ("wandb=null", "wandb=None should be a group of settings"),
    ("+phases.train=3", "phases.train=3 should be a group of settings"),
    (
        "model=dcgan phases.generator.clip_grad_norm=x",
        "phases.generator.clip_grad_norm=x should be a number",
    ),
    ("monitor=loss", "monitor=loss should be a metric of the validation split"),
    ("seed=-1", "seed=-1 should be greater than or equal to 0"),
    ("~trainer.test", "trainer.test is missing"),
    ("+trainer.max_epoch=3", "unknown setting trainer.max_epoch: did you mean trainer.max_epochs"),
    ("+trainer.lrr=1", "unknown setting trainer.lrr: did you mean optimizer.lr"),
]


@pytest.mark.parametrize(("overrides", "message"), MISTAKES)
def test_mistakes_are_named(overrides, message, composed):
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        check_settings(composed(*overrides.split()))
    assert "\n" not in str(caught.value)


def test_whole_numbers_are_numbers(composed):
    assert check_settings(composed("trainer.target=1")).target == 1


def test_every_setting_has_a_line_for_the_reference():
    for node in ast.parse(inspect.getsource(schema)).body:
        if not isinstance(node, ast.ClassDef):
            continue
        assert ast.get_docstring(node)
        for entry, following in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(entry, ast.AnnAssign) and not ast.unparse(entry.target).startswith("__"):
                value = following.value if isinstance(following, ast.Expr) else None
                assert isinstance(value, ast.Constant), ast.unparse(entry)
                assert str(value.value).strip().endswith(".")
