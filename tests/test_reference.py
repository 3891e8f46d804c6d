"""The settings page equals the output of ``python -m core.reference`` and is complete."""

import re

from core.reference import PAGE, reference


def test_page_is_up_to_date():
    assert PAGE.read_text() == reference(), "run python -m core.reference"


def test_page_explains_every_setting(composed):
    text, config = PAGE.read_text(), composed()
    for section in ("trainer", "wandb", "param_groups"):
        for key in config[section]:
            assert re.search(rf"^\| `{section}\.{key}` \| .* \| .*\. \|$", text, re.M)
    assert "| `trainer.max_epochs` | whole number ≥ 1 | `15` |" in text
    assert "| `trainer.strategy` | `ddp`, `fsdp` | `ddp` |" in text
    assert "| `trainer.ema_decay` | number ≥ 0 < 1, null | `null` |" in text
    assert "| `wandb.tags` | list of text or whole number | `[]` |" in text
