"""Resuming from damaged files uses the previous checkpoint, or raises an error of one line."""

import shutil

import pytest
import torch

from core.errors import ConfigError, Interrupted
from tests.trainer.interrupting import SHORT, assert_same_run, checkpoint_of, signal_at

pytestmark = pytest.mark.usefixtures("few_digits")
SETTINGS = (*SHORT, "optim=adamw_warmup_cosine", "trainer.checkpoint_every_steps=3")


@pytest.fixture(scope="module")
def run_cache():
    return {}


@pytest.fixture
def uninterrupted(train, run_cache, tmp_path_factory):
    """An uninterrupted run."""
    if "uninterrupted" not in run_cache:
        run_cache["uninterrupted"] = train(
            *SETTINGS, run_dir=tmp_path_factory.mktemp("uninterrupted")
        )
    return run_cache["uninterrupted"]


@pytest.fixture
def run_dir(train, run_cache, tmp_path_factory, tmp_path):
    """A copy of a run that was interrupted at update 7."""
    if "interrupted" not in run_cache:
        run_cache["interrupted"] = tmp_path_factory.mktemp("interrupted")
        with signal_at(7), pytest.raises(Interrupted):
            train(*SETTINGS, run_dir=run_cache["interrupted"])
    return shutil.copytree(run_cache["interrupted"], tmp_path / "run")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "another program's"])
def test_damaged_checkpoint_falls_back_to_previous(train, uninterrupted, run_dir, damage):
    """The log reports the damage."""
    last = run_dir / "checkpoints" / "last.pt"
    content, raw = checkpoint_of(run_dir), bytearray(last.read_bytes())
    last.unlink()  # best.pt may be a hard link to it
    if damage == "flipped":
        raw[len(raw) // 2] ^= 1
        last.write_bytes(raw)
    elif damage == "truncated":
        last.write_bytes(raw[:-100])
    elif damage == "another program's":
        torch.save(content["model"], last)
    assert_same_run(uninterrupted, train(*SETTINGS, "resume=auto", run_dir=run_dir))
    is_known = damage in ("truncated", "flipped")
    message = "is damaged" if is_known else "is not a checkpoint of this program"
    assert damage == "missing" or message in (run_dir / "train.log").read_text()


def test_two_damaged_checkpoints_raise(train, run_dir):
    for name in ("last", "previous"):
        (run_dir / "checkpoints" / f"{name}.pt").write_bytes(b"?")
    with pytest.raises(ConfigError, match=r"last\.pt is damaged"):
        train(*SETTINGS, "resume=auto", run_dir=run_dir)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("counters", []),
        ("counters", {}),
        ("counters", {"best": {"step": "7"}}),
        ("data", {"fingerprint": 1}),
        ("optimizers", {}),
        ("optimizers", {"train": {}}),
        ("optimizers", {"train": []}),
        ("metrics", {"window": 1}),
        ("model", {"w": 1}),
        ("wandb", 5),
        ("num_events", "many"),
    ],
)
def test_checkpoint_with_wrong_types_is_rejected(train, run_dir, part, value):
    (run_dir / "checkpoints" / "previous.pt").unlink()
    last = run_dir / "checkpoints" / "last.pt"
    content = checkpoint_of(run_dir)
    last.unlink()
    torch.save(content | {part: value}, last)
    with pytest.raises(ConfigError, match=r"last\.pt (does not fit|is not a checkpoint)"):
        train(*SETTINGS, "resume=auto", run_dir=run_dir)


@pytest.mark.parametrize("file", ["config.yaml", "metrics.jsonl"])
def test_damaged_records_are_rejected(train, run_dir, file):
    (run_dir / "summary.json").write_text("}")
    for content in (b"\0\xff{[", b"- a list", b""):
        (run_dir / file).write_bytes(content)
        if content == b"" and file == "metrics.jsonl":  # resuming continues without the events
            train(*SETTINGS, "resume=auto", run_dir=run_dir)
            assert "events are lost" in (run_dir / "train.log").read_text()
            continue
        with pytest.raises(ConfigError, match=file):
            train(*SETTINGS, "resume=auto", run_dir=run_dir)


@pytest.mark.parametrize("name", ["metrics.jsonl", ".lock"])
def test_folder_in_place_of_a_file_is_rejected(train, run_dir, name):
    (run_dir / name).unlink()
    (run_dir / name).mkdir()
    with pytest.raises(ConfigError, match=name):
        train(*SETTINGS, "resume=auto", run_dir=run_dir)
