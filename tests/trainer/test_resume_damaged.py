"""Resuming from damaged files: the checkpoint before, or one clear line."""

import io

import pytest
import torch

from core.errors import ConfigError, Interrupted
from tests.trainer.interrupting import (
    SHORT,
    assert_same_run,
    checkpoint_of,
    signal_at,
)

pytestmark = pytest.mark.usefixtures("few_digits")


EMPTIED = ("counters", "data", "wandb")  # a part of the checkpoint that is of no use


@pytest.mark.parametrize("damage", ["truncated", "flipped", "garbage", "missing", *EMPTIED])
def test_damaged_checkpoint(train, tmp_path, damage):
    """The checkpoint of before is used, and a person is told."""
    overrides = (*SHORT, "optim=adamw_warmup_cosine", "trainer.checkpoint_every_steps=3")
    whole = train(*overrides)
    run_dir = tmp_path / "damaged"
    with signal_at(7), pytest.raises(Interrupted):
        train(*overrides, run_dir=run_dir)
    last = run_dir / "checkpoints" / "last.pt"
    raw = bytearray(last.read_bytes())
    if damage == "flipped":
        raw[len(raw) // 2] ^= 1
    spoilt = {"truncated": raw[:-100], "flipped": raw, "garbage": b"?"}
    if damage in EMPTIED:
        emptied = io.BytesIO()
        torch.save(checkpoint_of(run_dir) | {damage: []}, emptied)
        spoilt[damage] = emptied.getvalue()
    last.unlink()
    if damage in spoilt:
        last.write_bytes(spoilt[damage])
    assert_same_run(whole, train(*overrides, "resume=auto", run_dir=run_dir))
    told = "is not a checkpoint of this program" if damage in EMPTIED else "is damaged"
    assert damage == "missing" or told in (run_dir / "train.log").read_text()


def test_no_good_checkpoint(train):
    run_dir = train(*SHORT)
    for name in ("last", "previous"):
        (run_dir / "checkpoints" / f"{name}.pt").write_bytes(b"?")
    with pytest.raises(ConfigError, match=r"last\.pt is damaged"):
        train(*SHORT, "optimizer.lr=0.1", "trainer.limit_train_steps=9", "resume=auto",
              run_dir=run_dir)  # fmt: skip


@pytest.mark.parametrize("file", ["config.yaml", "metrics.jsonl"])
@pytest.mark.parametrize("content", [b"\0\xff{[", b"- a list", b""])
def test_damaged_records(train, file, content):
    """One clear line, or nothing to worry about."""
    run_dir = train(*SHORT, "trainer.limit_train_steps=4")
    (run_dir / file).write_bytes(content)
    (run_dir / "summary.json").write_text("}")
    if content == b"" and file == "metrics.jsonl":
        train(*SHORT, "resume=auto", run_dir=run_dir)
        assert "events are lost" in (run_dir / "train.log").read_text()
        return
    with pytest.raises(ConfigError, match=file):
        train(*SHORT, "resume=auto", run_dir=run_dir)


@pytest.mark.parametrize(
    ("name", "is_folder"), [("metrics.jsonl", True), (".lock", True), ("checkpoints", False)]
)
def test_a_folder_for_a_file(train, name, is_folder):
    run_dir = train(*SHORT, "trainer.limit_train_steps=4")
    (run_dir / name).rename(run_dir / "away")
    if is_folder:
        (run_dir / name).mkdir()
    else:
        (run_dir / name).touch()
    with pytest.raises(ConfigError, match=name):
        train(*SHORT, "resume=auto", run_dir=run_dir)
