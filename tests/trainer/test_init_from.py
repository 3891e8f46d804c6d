"""``init_from``: weights of a run or a file are loaded if they match, and reported otherwise."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from core.errors import ConfigError, Interrupted
from core.job import Job
from core.ranks import Ranks
from data.spec_file import spec_content
from data.splits import ImageSpec
from tests.trainer.interrupting import SHORT, assert_same_run, checkpoint_of, signal_at, summary
from trainer.checkpoint.init_from import initialize
from trainer.loggers.run_log import RunLog

pytestmark = pytest.mark.usefixtures("few_digits")


class CollectingRunLog(RunLog):
    """A run log that collects printed lines."""

    def __init__(self):
        super().__init__(Job("."))
        self.lines = []

    def print(self, text):
        self.lines.append(text)


def net(classes=3):
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, classes))


def load(model, file, spec=None):
    """Return the summary record and the printed line."""
    log = CollectingRunLog()
    return initialize(model, str(file), log, Ranks(), spec)["init_from"], log.lines[0]


@pytest.mark.parametrize("form", ["plain.pt", "nested.pth", "half.safetensors"])
def test_loads_files_of_other_programs(tmp_path, form):
    parent, child, file = net(), net(), tmp_path / form
    state = parent.state_dict()
    if form == "plain.pt":
        torch.save(state, file)
    elif form == "nested.pth":
        torch.save({"epoch": 3, "state_dict": {f"module.model.{k}": state[k] for k in state}}, file)
    else:
        save_file({name: value.half() for name, value in state.items()}, file)
    record, line = load(child, file)
    assert record["num_loaded"] == 9
    assert line == f"init_from: 9 of 9 tensors from {file}"
    for name, value in child.state_dict().items():
        assert torch.allclose(value.float(), state[name].float(), atol=1e-3), name


def test_different_number_of_classes_reinitializes_head(tmp_path):
    file, child = tmp_path / "parent.pt", net(classes=5)
    initial = child[2].weight.clone()
    torch.save(net().state_dict() | {"head.bias": torch.zeros(1)}, file)
    record, line = load(child, file)
    assert "7 of 9 tensors" in line
    mismatched = "2.weight (5, 8), in the file (3, 8), 2.bias (5,), in the file (3,)"
    assert f"; newly initialized: {mismatched}; not used: head" in line
    assert (record["new"], record["unused"]) == (["2.weight", "2.bias"], ["head.bias"])
    assert torch.equal(child[2].weight, initial)


def test_different_class_names_reinitialize_head(tmp_path):
    """The output layer is loaded only for equal class names, not just an equal number."""
    parent, folder = net(), tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(parent.state_dict(), folder / "best.pt")
    specs = {
        names: ImageSpec("pets", 1, (2, 2), tuple(names), (0.5,), (0.5,))
        for names in ("abc", "abd")
    }
    (tmp_path / "run" / "spec.json").write_text(json.dumps(spec_content(specs["abc"])))
    child = net()
    initial = child[2].weight.clone()
    record, line = load(child, tmp_path / "run", specs["abd"])
    assert line.endswith("; newly initialized: 2.weight (other classes), 2.bias (other classes)")
    assert record["new"] == ["2.weight", "2.bias"]
    assert torch.equal(child[2].weight, initial)
    assert torch.equal(child[0].weight, parent[0].weight)
    assert load(child, tmp_path / "run", specs["abc"])[0]["new"] == []


@pytest.mark.parametrize("tied", ["true", "false"])
def test_different_tokenizer_reinitializes_token_layers(train, tmp_path, tied):
    """Rows of the embedding and the output layer would belong to other characters."""
    short = ("model=transformer", "data=text_file", "data.context_length=8", "model.width=16",
             "model.num_layers=1", "model.num_heads=2", f"model.tie_weights={tied}",
             "trainer.max_steps=2", "objective.sample_tokens=0")  # fmt: skip
    for name, text in (("lower", "abcd"), ("upper", "ABCD"), ("same", "dcba")):
        (tmp_path / f"{name}.txt").write_text(text * 200)
    parent = train(*short, f"data.path={tmp_path}/lower.txt")
    found = {}
    for name in ("upper", "same"):
        run = train(*short, f"data.path={tmp_path}/{name}.txt", f"init_from={parent}")
        found[name] = summary(run)["init_from"]["new"]
        if name == "upper":
            assert "(another tokenizer)" in (run / "train.log").read_text()
    assert found == {"upper": ["embedding.weight", "head.weight"], "same": []}


def test_wrong_checksum_is_rejected(train, tmp_path):
    file = train(*SHORT, "trainer.limit_train_steps=1") / "checkpoints" / "best.pt"
    content = bytearray(file.read_bytes())
    weight = checkpoint_of(file.parents[1], "best")["model"]["features.0.conv.weight"]
    content[content.index(weight.numpy().tobytes())] ^= 1
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"init_from=.*damaged: wrong checksum"):
        load(net(), file)


def test_tied_weights_are_loaded_from_either_name(tmp_path):
    """Hugging Face transformers stores a tied tensor once."""
    child, file = net(8), tmp_path / "parent.pt"
    child.append(nn.Linear(8, 8))
    child[3].weight = child[2].weight
    torch.save({"3.weight": torch.ones(8, 8)}, file)
    record, line = load(child, file)
    assert record["num_loaded"] == 2
    assert "2.weight" not in line
    assert torch.equal(child[2].weight, torch.ones(8, 8))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x.y": torch.zeros(1)}, "no tensor name matches: the file has x.y, Sequential has 0.we"),
        (
            {"0.bias": torch.zeros(9)},
            r"no tensor has the model's shape: 0.bias \(8,\), in the file \(9",
        ),
        ({"0.bias": torch.full((8,), torch.nan)}, "0.bias is not finite"),
        (net(), "has more than tensors"),
        ([1, 2], "has no state dict"),
        ({"epoch": 3}, "has no state dict"),
        (b"no file of torch", "is damaged"),
        (None, "there is no such file"),
    ],
    ids=range(8),
)
def test_unusable_file_raises_one_line(tmp_path, content, message):
    file = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(ConfigError, match=rf"^init_from={file}.*{message}[^\n]*$"):
        load(net(), file)


def test_pickled_code_is_not_executed(tmp_path):
    class Payload:
        def __reduce__(self):
            return (pytest.fail, ("was executed",))

    file = tmp_path / "weights.pt"
    torch.save(Payload(), file)
    with pytest.raises(ConfigError, match="could run arbitrary code"):
        load(net(), file)
    with pytest.raises(ConfigError, match=r"init_from=.*has no checkpoint"):
        load(net(), tmp_path)


def test_model_without_tensors_is_rejected(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(ConfigError, match="no tensor name matches: the file has weight, Identity"):
        load(nn.Identity(), tmp_path / "weights.pt")


def test_initialized_run_resumes_without_its_parent(train, tmp_path):
    """Classes and optimizer differ from the parent's; the result is bit-identical."""
    parent = train(*SHORT, "trainer.ema_decay=0.5", "trainer.limit_train_steps=2")
    expected = checkpoint_of(parent, "best")["ema"]["features.0.conv.weight"]
    overrides = (
        *SHORT,
        "data=synthetic_images",
        "data.num_classes=7",
        f"init_from={parent}",
        "optim=adamw_warmup_cosine",
        "param_groups.rules=[{match:'features.0.',freeze:true}]",
    )
    uninterrupted = train(*overrides)
    assert torch.equal(checkpoint_of(uninterrupted)["model"]["features.0.conv.weight"], expected)
    with signal_at(6), pytest.raises(Interrupted):
        train(*overrides, run_dir=tmp_path / "resumed")
    shutil.rmtree(parent)
    resumed = train(*overrides, "resume=auto", run_dir=tmp_path / "resumed")
    assert_same_run(uninterrupted, resumed)
    record = summary(uninterrupted)["init_from"]
    assert record == summary(resumed)["init_from"]
    assert record["new"] == ["classifier.weight", "classifier.bias"]
    assert len(record["sha256"]) == 64
