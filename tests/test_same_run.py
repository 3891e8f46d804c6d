"""Which settings have changed since a run was recorded, and which of them may change."""

import pytest

from core.errors import ConfigError
from core.same_run import compare


def test_unknown_name_in_resume_changes():
    """It is rejected even if nothing has changed, unless the setting was removed."""
    config = {"optimizer": {"lr": 0.1}, "resume_changes": ["optimizer", "scheduler.power"]}
    recorded = {**config, "scheduler": {"power": 2.0}}
    assert compare(config, recorded) == ["scheduler.power"]
    message = r"resume_changes: unknown setting optimizr\.lr: did you mean optimizer\.lr\?"
    with pytest.raises(ConfigError, match=message):
        compare(config | {"resume_changes": ["optimizr.lr"]}, config)


def test_advice_includes_the_changes_already_named():
    config = {"seed": 1, "model": {"dropout": 0.5}, "resume_changes": ["seed"]}
    recorded = {"seed": 0, "model": {"dropout": 0.1}, "resume_changes": []}
    with pytest.raises(ConfigError, match=r"'resume_changes=\[seed,model\.dropout\]'"):
        compare(config, recorded)


def test_settings_added_to_the_program_count_as_unchanged():
    before = {"optimizer": {"lr": 0.1, "nesterov": False}, "resume_changes": []}
    since = {"init_from": None, "data": {"transforms": []}, "loggers": []}
    assert compare(before | since, before) == []
    assert compare(before, before | since) == []
    with pytest.raises(ConfigError, match="init_from was absent, is outputs/other"):
        compare(before | {"init_from": "outputs/other"}, before)
    with pytest.raises(ConfigError, match=r"optimizer\.nesterov was False, is None"):
        compare(before | {"optimizer": {"lr": 0.1, "nesterov": None}}, before)
