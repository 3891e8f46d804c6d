"""Language modelling: metrics, samples, carried state, wrong settings."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from core.errors import ConfigError
from data.loader import Loader
from data.text import corpus
from models.recurrent import RecurrentModel
from models.transformer import Transformer
from objectives.language_modeling import LanguageModeling
from objectives.truncated_backpropagation import TruncatedBackpropagation
from tests.trainer.interrupting import events, summary
from trainer.evaluation import evaluate

TEXT = "".join(f"{number} bottles of beer on the wall…\n" for number in range(60))
SAMPLES = {"sample_tokens": 20, "sample_prompt": "1", "sample_temperature": 0.8}
TINY = ("data.context_length=16", "data.batch_size=8", "trainer.log_every_steps=1",
        "trainer.max_steps=4", "trainer.eval_every_steps=2", "trainer.limit_eval_steps=2",
        "objective.sample_tokens=30", "trainer.precision=fp32")  # fmt: skip
MODELS = {
    "transformer": ("model=transformer", "model.width=16", "model.num_layers=1"),
    "lstm": ("model=lstm", "model.width=16"),
    "gru": ("model=gru", "model.width=16"),
}


def splits_of(tmp_path, tokenizer="char", lanes=None):
    file = tmp_path / "beer.txt"
    file.write_text(TEXT, encoding="utf-8")
    return corpus(str(file), str(tmp_path), 16, tokenizer, 300, 0.2, 0.0, lanes)


def loader(splits, rank=0, world_size=1, accumulate_steps=1, eval_batch_size=4):
    cpu = torch.device("cpu")
    return Loader(splits, cpu, 0, rank, world_size, accumulate_steps, 4, eval_batch_size, 0)


def val_metrics(objective, splits, eval_batch_size=3):
    data = loader(splits, eval_batch_size=eval_batch_size)
    return evaluate(objective, objective.model, data, "val", "fp32")[0]


def truncated_backpropagation(tmp_path, cell="gru", lanes=4):
    """Return an objective with a small recurrent model, and splits of ``TEXT``."""
    splits = splits_of(tmp_path, lanes=lanes)
    torch.manual_seed(0)
    model = RecurrentModel(cell, splits.spec.vocab_size, 1, 16)
    return TruncatedBackpropagation(model, splits.spec, lanes, **SAMPLES), splits


@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe"])
def test_metrics_equal_direct_computation(tokenizer, tmp_path):
    splits = splits_of(tmp_path, tokenizer)
    spec = splits.spec
    objective = LanguageModeling(
        Transformer(spec.vocab_size, 16, 1, 2, 16), spec, 0, sample_prompt="", sample_temperature=1
    )
    metrics = val_metrics(objective, splits)
    tokens = splits.val.tensors[0].long()
    losses = []
    for start in range(0, len(tokens) - 1, 16):
        window = tokens[start : start + 17]
        logits, _ = objective.model(window[None, :-1])
        losses += logits[0].log_softmax(-1).gather(1, window[1:, None]).neg().flatten().tolist()
    text = spec.decode(tokens[1:].tolist())
    nats = sum(losses)
    assert len(losses) == len(tokens) - 1
    assert metrics["loss"] == pytest.approx(nats / len(losses), rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(math.exp(nats / len(losses)), rel=1e-4)
    assert metrics["bits_per_byte"] == pytest.approx(
        nats / math.log(2) / len(text.encode()), rel=1e-4
    )


def test_state_is_carried_across_updates(tmp_path):
    objective, splits = truncated_backpropagation(tmp_path, "lstm")
    data = loader(splits, accumulate_steps=2)
    for epoch in (0, 1):  # the second epoch starts from a zero state
        losses = [
            objective("train", batch)[0].detach()
            for update in data.train(epoch)
            for batch in update
        ]
        per_update = torch.stack(losses).view(-1, 2).mean(1)
        starts = torch.arange(4)[:, None] * splits.train.lane_length
        text = splits.train.tensors[0][starts + torch.arange(len(per_update) * 16 + 1)].long()
        logits, _ = objective.model(text[:, :-1])  # each lane in a single pass
        expected = cross_entropy(logits.transpose(1, 2), text[:, 1:], reduction="none")
        assert torch.allclose(per_update, expected.view(4, -1, 16).mean((0, 2)), atol=1e-5)


def test_gradient_is_truncated_at_the_window(tmp_path):
    objective, splits = truncated_backpropagation(tmp_path)
    for (batch,) in list(loader(splits).train(0))[:3]:
        objective("train", batch)[
            0
        ].backward()  # raises if it reaches the freed graph of the last window
    assert not objective.carried.requires_grad
    assert (objective.carried != 0).any()


def test_evaluation_carries_state_within_a_block(tmp_path):
    objective, splits = truncated_backpropagation(tmp_path, lanes=2)
    inputs, targets = splits.val.gather(torch.arange(2))
    logits, _ = objective.model(inputs)
    expected = cross_entropy(logits.flatten(0, 1), targets.flatten())
    metrics = [val_metrics(objective, splits, eval_batch_size=size)["loss"] for size in (1, 2)]
    assert metrics == pytest.approx([expected.item()] * 2, rel=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_run_records_metrics_and_samples(name, train):
    run_dir = train(*MODELS[name], *TINY)
    found = summary(run_dir)
    assert found["status"] == "completed"
    assert found["val/perplexity"] == pytest.approx(math.exp(found["val/loss"]), rel=1e-4)
    declared = LanguageModeling.metric_modes
    assert {f"{split}/{metric}" for split in ("val", "test") for metric in declared} <= set(found)
    assert found["best"]["value"] <= found["val/loss"]
    losses = [event["train/loss"] for event in events(run_dir) if "train/loss" in event]
    assert losses[-1] < losses[0]
    for step in (2, 4):
        text = (run_dir / "media" / f"val_step_{step}" / "sample.txt").read_text()
        assert len(text) == 31
        assert text.startswith("\n")


def test_sampling_from_a_corpus_without_newlines(train, tmp_path):
    """The default prompt is a newline; without a token for it, samples start with token 0."""
    (tmp_path / "long_line.txt").write_text("to be or not to be " * 500)
    text = ("data=text_file", f"data.path={tmp_path}/long_line.txt")
    run_dir = train(*MODELS["lstm"], *text, *TINY)
    sample = (run_dir / "media" / "val_step_4" / "sample.txt").read_text()
    assert sample.startswith(" ")
    assert len(sample) == 31


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model=transformer", "data.context_length=16", "model.context_length=8"),
         "model and data.context_length=16 do not fit: .*: 16 tokens do not fit"),
        (("model=transformer", "model.vocab_size=7"), "model.vocab_size and data=python_docs"),
        (("model=transformer", "objective=truncated_backpropagation"),
         "Transformer has no recurrent state"),
        (("model=transformer", "data=mnist5k", "model.vocab_size=9", "model.context_length=9"),
         "needs text, data=mnist5k has none"),
        (("model=transformer", "objective=classification"),
         "objective=classification needs classes, data=python_docs has none"),
        (("model=transformer", "objective.sample_prompt='éa€'"),
         "objective.sample_prompt: .* no token for: 'é' '€'"),
        (("model=lstm", "objective.sample_temperature=-1"),
         r"objective\.sample_temperature=-1 should be greater than or equal to 0"),
        (("model=lstm", "model.cell=rnn"), "model.cell=rnn should be 'lstm' or 'gru'"),
    ],
)  # fmt: skip
def test_incompatible_settings_are_rejected(overrides, message, train):
    with pytest.raises(ConfigError, match=message):
        train(*overrides)


@pytest.mark.parametrize(
    "settings",
    [
        ("data.lanes=2",),
        ("objective.lanes=8",),
        ("data.lanes=null",),
        ("model=transformer", "data.lanes=4", "objective=language_modeling"),
    ],
)
def test_lanes_must_equal_batch_size(settings, train):
    """With two windows of a lane in one update, the second would start from a stale state."""
    with pytest.raises(ConfigError, match=r"data\.lanes"):
        train("model=lstm", *TINY, "data.batch_size=4", *settings)


def test_model_that_returns_an_empty_tuple_is_rejected(train, monkeypatch):
    monkeypatch.setattr(RecurrentModel, "forward", lambda self, tokens, state=None: ())
    with pytest.raises(ConfigError, match="RecurrentModel returns a tuple of nothing for two"):
        train(*MODELS["lstm"], *TINY)


@pytest.mark.parametrize("world_size", [1, 2])
def test_every_process_saves_state_of_all_lanes(world_size, tmp_path, monkeypatch):
    single, splits = truncated_backpropagation(tmp_path)
    ranks = range(world_size)
    objectives = [TruncatedBackpropagation(single.model, splits.spec, 4, **SAMPLES) for _ in ranks]
    for objective, rank in zip(objectives, ranks, strict=True):
        for (batch,) in loader(splits, rank, world_size).train(0):
            objective("train", batch)
    states = []
    where = "objectives.truncated_backpropagation.sum_over_ranks"
    monkeypatch.setattr(where, lambda tensor: states.append(tensor) or tensor)
    for objective in objectives:
        objective.state()
    for (batch,) in loader(splits).train(0):
        single("train", batch)
    assert torch.allclose(sum(states), single.carried, atol=1e-6)
    single.load_state({"carried": sum(states)})
    assert torch.equal(single.state()["carried"], sum(states))
