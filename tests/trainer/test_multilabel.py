"""Multi-label classification: metrics equal to scikit-learn's, thresholds, invalid labels."""

import json

import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from core.errors import ConfigError
from data.splits import ImageSpec
from models.mlp import MLP
from objectives.build import build_objective
from objectives.multilabel import Multilabel
from predict import main
from tests.trainer.interrupting import summary

NAMES = ("cat", "dog", "owl")
SPEC = ImageSpec("animals", 1, (2, 2), NAMES, (0.5,), (0.5,))


class FlatMLP(MLP):
    def forward(self, images):
        return super().forward(images.flatten(1))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(60, 1, 2, 2, generator=generator)
    return images, (images.flatten(1)[:, :3] > 0.3).to(torch.uint8)


def objective(**settings):
    torch.manual_seed(0)
    return Multilabel(FlatMLP(4, 3, [8], 0.0), SPEC, **settings)


@pytest.mark.parametrize("threshold", [0.5, 0.45])
def test_metrics_equal_scikit_learn(batch, threshold, tmp_path):
    images, labels = batch
    measured = objective(threshold=threshold)
    sums, samples = {}, []
    with torch.no_grad():
        for part in range(0, 60, 25):  # the last batch is smaller
            sums, found = measured.evaluate(
                measured.model, (images[part : part + 25], labels[part : part + 25])
            )
            samples.append(found)
        loss, _ = measured("train", batch)
    probabilities = torch.cat([part["probability"] for part in samples])
    predicted = probabilities > threshold
    metrics = measured.metrics.compute()
    assert metrics == pytest.approx(
        {
            "map": average_precision_score(labels, probabilities),
            "f1": f1_score(labels, predicted, average="macro", zero_division=0),
            "subset_accuracy": accuracy_score(labels, predicted),
        }
    )
    expected = torch.nn.functional.binary_cross_entropy(probabilities, labels.float())
    torch.testing.assert_close(loss, expected)
    assert sums["loss"][1] == 10
    media = measured.media({"probability": probabilities, "label": labels}, None, tmp_path)
    per_label = average_precision_score(labels, probabilities, average=None)
    assert [row[2] for row in media["labels"].rows] == pytest.approx(per_label.tolist())


def test_invalid_labels_are_rejected():
    for labels in (torch.arange(4), torch.full((4, 3), 2), torch.ones(4, 2)):
        with pytest.raises(ConfigError, match=r"0 or 1 for each of the 3 labels.* val split are"):
            objective().check_targets(labels, "val")
    node = {"_target_": "objectives.multilabel.Multilabel", "threshold": 1}
    with pytest.raises(ConfigError, match="threshold=1 should be less than 1"):
        build_objective(node, FlatMLP(4, 3, [8], 0.0), SPEC)


def test_run_predicts_digits_of_an_image(train, tmp_path, capsys):
    run_dir = train(
        "data=several_digits",
        "objective=multilabel",
        "objective.metrics=[recall]",
        "data.num_train=64",
        "data.num_val=20",
        "data.num_test=20",
        "trainer.max_epochs=1",
    )
    assert {"test/map", "test/f1", "test/subset_accuracy", "test/recall"} <= set(summary(run_dir))
    grid, answers = tmp_path / "digits.png", tmp_path / "out.json"
    from PIL import Image

    Image.new("L", (56, 56)).save(grid)
    capsys.readouterr()
    assert main([str(run_dir), str(grid), "--json", str(answers)]) == 0
    rows = json.loads(answers.read_text())
    assert [row["label"] for row in rows] == list("0123456789")
    predicted_labels = [row["label"] for row in rows if row["holds"]] or ["no label"]
    assert capsys.readouterr().out.split("  ")[1].strip() == predicted_labels[0]
    assert all(row["holds"] == (row["probability"] > 0.5) for row in rows)
    assert main([str(run_dir), str(grid), "--top-k", "2"]) == 1
    assert "--top-k has no effect with files where the model labels" in capsys.readouterr().err
    assert main([str(run_dir), "--test"]) == 0
    assert capsys.readouterr().out.count("(as recorded)") == 5
