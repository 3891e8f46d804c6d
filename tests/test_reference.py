"""The reference page is what ``python -m core.reference`` writes, and names every setting."""

from core.reference import PAGE, field_docs, reference
from core.schema import ParamGroupSettings, TrainerSettings, WandbSettings


def test_page_is_up_to_date():
    assert PAGE.read_text() == reference(), "run python -m core.reference"


def test_page_names_every_setting_with_its_default(composed):
    config, text = composed(), PAGE.read_text()
    for section, schema in (
        ("trainer", TrainerSettings),
        ("wandb", WandbSettings),
        ("param_groups", ParamGroupSettings),
    ):
        assert set(config[section]) == set(field_docs(schema))
        for key in config[section]:
            assert text.count(f"| `{section}.{key}` |") == 1
    assert "| `trainer.max_epochs` | whole number ≥ 1 | `15` |" in text
    assert "| `trainer.strategy` | `ddp`, `fsdp` | `ddp` |" in text
    assert "| `trainer.ema_decay` | number ≥ 0 < 1, null | `null` |" in text
    assert "| `wandb.tags` | list of text or whole number | `[]` |" in text
