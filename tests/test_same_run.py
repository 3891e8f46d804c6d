"""What has changed since a run was recorded, and what may have."""

import pytest

from core.errors import ConfigError
from core.same_run import compare


def test_a_name_that_is_no_setting():
    """Also where nothing has changed; a setting that was taken out is one."""
    config = {"optimizer": {"lr": 0.1}, "resume_changes": ["optimizer", "scheduler.power"]}
    recorded = {**config, "scheduler": {"power": 2.0}}
    assert compare(config, recorded) == ["scheduler.power"]
    message = r"resume_changes: unknown setting optimizr\.lr: did you mean optimizer\.lr\?"
    with pytest.raises(ConfigError, match=message):
        compare(config | {"resume_changes": ["optimizr.lr"]}, config)


def test_advice_keeps_the_changes_that_are_named_already():
    config = {"seed": 1, "model": {"dropout": 0.5}, "resume_changes": ["seed"]}
    recorded = {"seed": 0, "model": {"dropout": 0.1}, "resume_changes": []}
    with pytest.raises(ConfigError, match=r"'resume_changes=\[seed,model\.dropout\]'"):
        compare(config, recorded)


def test_settings_that_the_program_has_got_since_change_nothing():
    before = {"optimizer": {"lr": 0.1, "nesterov": False}, "resume_changes": []}
    since = {"init_from": None, "data": {"transforms": []}, "loggers": []}
    assert compare(before | since, before) == []
    assert compare(before, before | since) == []
    with pytest.raises(ConfigError, match="init_from was absent, is outputs/other"):
        compare(before | {"init_from": "outputs/other"}, before)
    with pytest.raises(ConfigError, match=r"optimizer\.nesterov was False, is None"):
        compare(before | {"optimizer": {"lr": 0.1, "nesterov": None}}, before)
