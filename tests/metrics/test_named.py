"""``objective.metrics``: torchmetrics by name."""

import json
from unittest.mock import patch

import pytest
import torch

from core.errors import ConfigError
from core.monitor import monitor_of
from metrics.named import NamedMetrics

CLASSES = ("cat", "dog", "bird")
EXAMPLE = (torch.full((2, 3), 1 / 3), torch.arange(2))


def multiclass_metrics(*named):
    return NamedMetrics(
        list(named), "multiclass", {"num_classes": 3}, CLASSES, EXAMPLE, measured=("accuracy",)
    )


def test_metrics_accumulate_over_batches():
    """With batches of 4 and 1 samples, averages of per-batch values would differ."""
    named = multiclass_metrics(
        "f1", "top2", "ece", {"name": "MulticlassRecall", "average": None, "as": "r"}
    )
    labels = torch.tensor([0, 0, 1, 1, 2])
    probabilities = torch.tensor(
        [[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.8, 0.1], [0.5, 0.1, 0.4], [0.2, 0.2, 0.6]]
    )
    for _ in range(2):  # reset() discards the first evaluation
        named.reset()
        named.update(probabilities[:4], labels[:4])
        named.update(probabilities[4:], labels[4:])
    # cat and dog: one true positive, one false positive, one false negative; bird: all correct
    confidence = torch.tensor([0.8, 0.5, 0.8, 0.5, 0.6])
    gaps = [abs(0.5 - 0.0) * 2, abs(0.6 - 1.0), abs(0.8 - 1.0) * 2]  # bins at 0.5, 0.6, 0.8
    assert named.compute() == pytest.approx(
        {
            "f1": (0.5 + 0.5 + 1.0) / 3,
            "top2": 3 / 5,
            "ece": sum(gaps) / len(confidence),
            "r/cat": 0.5,
            "r/dog": 0.5,
            "r/bird": 1.0,
        }
    )


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("f2", r"no f2 for a multiclass task; did you mean f1\? there are f1, precision"),
        ("F1Score", r"did you mean MulticlassF1Score\?"),
        ("BinaryF1Score", "there is no BinaryF1Score for a multiclass task"),
        ("r2", "there is no r2 for a multiclass task"),
        ("accuracy", "accuracy is recorded already"),
        ("top4", "MulticlassAccuracy refused its settings: .*top_k"),
        ({"name": "f1", "averge": "micro"}, "MulticlassF1Score refused its settings: .*averge"),
        ("MulticlassConfusionMatrix", r"returns \(3, 3\); a metric should be one number"),
        ("MulticlassROC", "returns tuple; a metric should be one number"),
        ({"average": "micro"}, "should be a list of names, or of mappings"),
        (5, "should be a list of names, or of mappings"),
    ],
)
def test_invalid_metric_is_rejected(named, message):
    with pytest.raises(ConfigError, match=message):
        multiclass_metrics(named)


def test_unknown_image_metric_lists_image_metrics():
    with pytest.raises(ConfigError, match="no r2 for images; there are mae, rmse, mape, mse, psnr"):
        NamedMetrics(["r2"], "images", {"data_range": 1.0})


def test_multilabel_and_regression_metrics():
    targets = torch.tensor([[1, 0], [0, 1]])
    example = (torch.full((2, 2), 0.5), targets)
    multilabel = NamedMetrics(["f1", "exact_match"], "multilabel", {"num_labels": 2}, (), example)
    multilabel.update(torch.tensor([[0.9, 0.2], [0.8, 0.7]]), targets)
    assert multilabel.compute() == pytest.approx({"f1": (2 / 3 + 1) / 2, "exact_match": 0.5})
    regression = NamedMetrics(["rmse", "mae", "spearman"], "regression")  # pytest fails on warnings
    regression.update(torch.tensor([1.0, 5.0]), torch.tensor([1.0, 2.0]))
    expected = {"rmse": 4.5**0.5, "mae": 1.5, "spearman": 1.0}
    assert regression.compute() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("metric", "mode"), [("f1", "max"), ("ece", "min"), ("cal", "min")])
def test_monitor_mode_follows_named_metric(composed, metric, mode):
    named = "objective.metrics=[f1,ece,{name: ece, as: cal}]"
    assert monitor_of(composed(named, f"monitor=val/{metric}")).mode == mode


def test_run_logs_and_monitors_named_metrics(train, few_digits):
    run = train("debug=fast", "objective.metrics=[f1,ece]", "monitor=val/ece")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["best"]["value"] == min(
        event["val/ece"]
        for event in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        if "val/ece" in event
    )
    assert {"test/f1", "test/ece", "val/f1"} <= summary.keys()


def test_overlapping_tokens_count_once(train, tmp_path):
    """The last window of an evaluation overlaps the one before it."""
    text = tmp_path / "text.txt"
    text.write_text("abcabcab" * 50)
    seen = []
    with patch("metrics.named.NamedMetrics.update", lambda self, *batch: seen.append(batch)):
        train(
            "model=lstm",
            "model.width=8",
            "data=text_file",
            f"data.path={text}",
            "data.context_length=15",
            "data.batch_size=4",
            "debug=fast",
            "objective.metrics=[top2]",
        )
    probabilities, targets = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert probabilities.shape == (len(targets), 3)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(targets)))
    evaluations = 2
    assert len(targets) == evaluations * (len("abcabcab") * 5 - 1)
    assert targets.min() >= 0
