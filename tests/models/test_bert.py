"""The text classifier ``model=bert``: pooling, weights, fine-tuning and prediction."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import ConfigError
from core.instantiate import instantiate

TOKENS = torch.tensor([[2, 4, 6, 5, 3], [2, 9, 3, 0, 0]])
MASK = TOKENS != 0


def classifier(tiny_bert, **settings):
    node = {"_target_": "models.bert.bert", "pretrained": str(tiny_bert), "architecture": None}
    node |= {"num_classes": 3, "max_length": 16, "pooling": "mean", "dropout": 0.0}
    return instantiate(node | settings, "model").eval()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_ignores_padding(pooling, tiny_bert):
    model = classifier(tiny_bert, pooling=pooling)
    logits = model(TOKENS, MASK)
    alone = model(TOKENS[1:, :3], MASK[1:, :3])
    torch.testing.assert_close(logits[1:], alone)
    states = model.encoder(TOKENS[1:, :3]).last_hidden_state
    pooled = states.mean(1) if pooling == "mean" else states[:, 0]
    torch.testing.assert_close(alone, model.classifier(pooled))
    logits.sum().backward()  # DistributedDataParallel fails on parameters without gradient
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_only_random_weights_depend_on_the_seed(tiny_bert):
    architecture = (tiny_bert / "config.json").read_text()

    def embeddings(seed, **settings):
        torch.manual_seed(seed)
        return classifier(tiny_bert, **settings).encoder.embeddings.word_embeddings.weight

    assert torch.equal(embeddings(1), embeddings(2))
    random = {"pretrained": None, "architecture": architecture}
    assert torch.equal(embeddings(1, **random), embeddings(1, **random))
    assert not torch.equal(embeddings(1, **random), embeddings(2, **random))
    assert not torch.equal(embeddings(1, **random), embeddings(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "max"}, r"model\.pooling=max should be 'mean' or 'cls'"),
        ({"pretrained": None}, "random weights need an architecture"),
        ({"pretrained": "./missing"}, r"model\.pretrained=./missing: there is no such folder"),
        ({"max_length": 17}, r"data\.max_length=17 is more than the 16 positions"),
    ],
)
def test_invalid_settings_are_rejected(settings, message, tiny_bert):
    with pytest.raises(ConfigError, match=message):
        classifier(tiny_bert, **settings)


class Hostile:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize("content", ["missing", "safetensors", b"", "hostile", "half"])
def test_untrusted_weights_run_no_code(content, tiny_bert, tmp_path, monkeypatch):
    """``pytorch_model.bin`` is a pickle, from which only tensors are read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text((tiny_bert / "config.json").read_text())
    file = tmp_path / "pytorch_model.bin"
    if content == "safetensors":
        (tmp_path / "model.safetensors").write_bytes(b"no weights")
    elif content == "hostile":
        torch.save({"embeddings": Hostile()}, file)
    elif content == "half":
        torch.save({"embeddings": torch.zeros(1000)}, file)
        file.write_bytes(file.read_bytes()[:2000])
    elif content == b"":
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.pretrained=.* cannot be loaded: \w+") as caught:
        classifier(tiny_bert, pretrained=str(tmp_path))
    assert "\n" not in str(caught.value)
    assert not Path("executed").exists()


def test_missing_encoder_weights_are_rejected(tiny_bert, tmp_path):
    """transformers would initialize them at random; only the unused pooler may be missing."""
    folder = shutil.copytree(tiny_bert, tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    for part in ("pooler", "encoder.layer.1."):
        weights = {name: value for name, value in weights.items() if not name.startswith(part)}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        if part == "pooler":
            classifier(tiny_bert, pretrained=str(folder))
    with pytest.raises(ConfigError, match=r"lacks 16 of the encoder's weights, such as encoder\."):
        classifier(tiny_bert, pretrained=str(folder))


@pytest.fixture(scope="module")
def finished(train_once, tiny_bert, tmp_path_factory):
    """A finished run that classifies texts as good or bad."""
    file = tmp_path_factory.mktemp("csv") / "reviews.csv"
    texts = [f"a {'very ' * (i % 5)}{word} film" for i in range(20) for word in ("good", "bad")]
    file.write_text("text,label\n" + "".join(f"{t},{t.split()[-2]}\n" for t in texts))
    return train_once(
        "model=bert",
        f"model.pretrained={tiny_bert}",
        f"data.path={file}",
        "data.max_length=16",
        "optimizer.lr=0.01",
        "trainer.max_epochs=10",
        "trainer.log_every_steps=5",
        "trainer.precision=fp32",
    )


def test_fine_tuning_learns(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["test/accuracy"] == 1.0
    table = json.loads((finished / "media" / "worst_predictions.json").read_text())
    row = dict(zip(table["columns"], table["rows"][0], strict=True))
    assert row["label"] in row["sample"]  # the table shows the text


def test_prediction_needs_only_the_run_directory(finished, predict):
    """The folder in ``model.pretrained`` no longer exists."""
    config = (finished / "config.yaml").read_text()
    (finished / "config.yaml").write_text(re.sub(r"pretrained: .*", "pretrained: ./gone", config))
    for word in ("good", "bad"):
        (line,), _ = predict(finished, "--text", f"a very {word} film")
        label, probability = line.split()
        assert label == word
        assert float(probability.rstrip("%")) > 50


def test_prediction_reads_csv_and_text_files(finished, tmp_path, predict):
    files = tmp_path / "new.csv", tmp_path / "new.txt"
    files[0].write_text('text;id\n"a good film";1\na bad film;2\n')
    files[1].write_text("\ufeffgood\n\nvery bad\n")
    out, _ = predict(finished, *files, "--csv", tmp_path / "out.csv")
    assert [line.split("  ")[:2] for line in out] == [
        [f"{files[0]}:2", "good"],
        [f"{files[0]}:3", "bad"],
        [f"{files[1]}:1", "good"],
        [f"{files[1]}:3", "bad"],
    ]
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 5
    out, _ = predict(finished, "--text", "good", "--text", "bad", "--top-k", 2)
    assert [line.split("  ")[:4:3] for line in out] == [["good", "bad"], ["bad", "good"]]


def test_truncated_text_is_reported(finished, predict):
    assert predict(finished, "--text", "good " * 14)[1] == []
    assert predict(finished, "--text", "good " * 50)[1] == [
        "note: the text is longer than data.max_length=16 tokens: the last 36 are ignored"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--text", " "], "--text is empty"), (["--prompt", "a"], "classifies texts: use --text")],
)
def test_invalid_prediction_arguments_are_rejected(arguments, message, finished, predict):
    _, (error,) = predict(finished, *arguments, code=1)
    assert message in error
