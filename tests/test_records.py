"""Untrusted run directories, as read by predict.py, resume and wandb_send."""

import os

import pytest

from core.errors import ConfigError
from core.files import lock, write_text
from core.records import printable, read_record
from core.run_directory import read_config
from tests.analysis.test_untrusted_runs import BILLION_LAUGHS, MERGED_LAUGHS
from trainer.loggers.run_files import keep_events


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"l0: &l0 [lol]\n{BILLION_LAUGHS}", "aliases"),
        (f"m0: &m0 {{a: 1}}\n{MERGED_LAUGHS}", "aliases"),
        ("a: &a [*a]", "aliases"),
        ("a: " + "[" * 100 + "]" * 100, "nested too deep"),
        ("a: " + "[" * 900, "nested too deep"),
        (f"a: {10**400}", "a number that is too large"),
        ("1: a", "the key 1 is not a string"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: " + "b" * (5 << 20), "larger than 4 MiB"),
    ],
)
def test_malformed_config_is_rejected(tmp_path, text, problem):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"config.yaml is damaged: .*{problem}"):
        read_config(tmp_path / "config.yaml")


@pytest.mark.parametrize("make", [os.mkfifo, lambda file: file.symlink_to("/dev/zero")])
def test_fifos_and_devices_are_rejected(tmp_path, make):
    make(tmp_path / "metrics.jsonl")
    with pytest.raises(ConfigError, match="is not a regular file"):
        list(keep_events(tmp_path / "metrics.jsonl", 1))
    (tmp_path / "metrics.jsonl").rename(tmp_path / "summary.json")
    with pytest.raises(OSError, match="is not a regular file"):
        read_record(tmp_path / "summary.json")


def test_events_after_the_checkpoint_are_truncated(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\n{"step": 2}\n{"step')
    assert [event["step"] for event in keep_events(file, 1)] == [1]
    assert file.read_bytes() == b'{"step": 1}\n'
    file.write_bytes(b'{"step": 1}\n[]\n')
    with pytest.raises(ConfigError, match="damaged in line 2"):
        list(keep_events(file, 2))


def test_symlinks_are_not_followed_for_writing(tmp_path):
    mine, link = tmp_path / "mine", tmp_path / "link"
    mine.write_text("mine")
    link.symlink_to(mine)
    with pytest.raises(OSError, match="symbolic links"):
        lock(link)
    (tmp_path / ".link.tmp").symlink_to(mine)
    write_text("other", link)
    assert mine.read_text() == "mine"
    assert link.read_text() == "other"


def test_control_characters_are_escaped():
    assert printable("a\x1b[31m\ud800\x9bü\n") == "a\\x1b[31m\\ud800\\x9bü\n"
