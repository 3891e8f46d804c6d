"""Regression: metrics in the units of the targets, predictions for CSV files, ONNX export."""

import json

import onnxruntime
import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from core.errors import ConfigError
from data.splits import ImageSpec, Quantities
from data.tables import Column, TableSpec
from models.mlp import MLP
from objectives.regression import LOSSES, Regression
from predict import main
from tests.trainer.interrupting import summary

QUANTITIES = Quantities(("mass", "height"), ("kg", "m"), mean=(70.0, 1.7), std=(10.0, 0.1))
SPEC = TableSpec("people", (Column("a"), Column("b")), (), QUANTITIES)


@pytest.fixture
def objective():
    torch.manual_seed(0)
    return Regression(MLP(2, 2, [4], 0.0), SPEC)


def test_metrics_equal_scikit_learn(objective):
    generator = torch.Generator().manual_seed(1)
    rows, noise = (torch.randn(50, 2, generator=generator) for _ in range(2))
    targets = noise * torch.tensor(QUANTITIES.std) + torch.tensor(QUANTITIES.mean)
    sums, samples = objective.evaluate(objective.model, (rows, targets))
    with torch.no_grad():
        outputs = objective.model(rows)
    loss, count = sums["loss"]
    torch.testing.assert_close(loss / count, (outputs - noise).square().mean())
    metrics, _ = objective.conclude(objective.model, {k: v.detach() for k, v in samples.items()})
    targets_and_predictions = targets.double(), samples["prediction"].detach().double()
    torch.testing.assert_close(samples["prediction"], outputs * objective.std + objective.mean)
    references = {"mae": mean_absolute_error, "rmse": root_mean_squared_error, "r2": r2_score}
    for name, reference in references.items():
        per_target = reference(*targets_and_predictions, multioutput="raw_values")
        assert metrics[name] == pytest.approx(per_target.mean())
        assert [metrics[f"{name}_mass"], metrics[f"{name}_height"]] == pytest.approx(
            per_target.tolist()
        )


@pytest.mark.parametrize("loss", LOSSES)
def test_double_precision_targets_are_accepted(loss):
    """numpy defaults to double; huber_loss, and mse_loss in torch 2.11, need equal dtypes."""
    objective = Regression(MLP(2, 2, [], 0.0), SPEC, loss=loss)
    outputs = torch.randn(5, 2, requires_grad=True)
    targets = torch.tensor(QUANTITIES.mean, dtype=torch.double).repeat(5, 1)
    grads = [
        torch.autograd.grad(objective.losses(outputs, typed_targets).sum(), outputs)
        for typed_targets in (targets, targets.float())
    ]
    torch.testing.assert_close(*grads)


def test_invalid_targets_are_rejected(objective):
    classes = ImageSpec("digits", 1, (28, 28), ("a", "b"), (0.5,), (0.5,))
    with pytest.raises(ConfigError, match=r"regression needs numbers to predict, data=digits has"):
        Regression(MLP(2, 2, [], 0.0), classes)
    with pytest.raises(ConfigError, match=r"instead of one tensor of shape \(2, 2\)"):
        Regression(MLP(2, 3, [], 0.0), SPEC)
    for targets in (torch.zeros(3, dtype=torch.long), torch.zeros(3, 1)):
        with pytest.raises(ConfigError, match="needs 2 floats per sample"):
            objective.check_targets(targets, "train")
    with pytest.raises(ConfigError, match="a target of the train split is not finite"):
        objective.check_targets(torch.full((3, 2), torch.nan), "train")


def test_classification_of_numbers_is_rejected(train):
    with pytest.raises(ConfigError, match="classification needs classes, data=diabetes has none"):
        train("model=mlp", "objective=classification", "monitor=val/loss")


TABLE = "".join(f"{i % 7},{'ab'[i % 2]},{2 * (i % 7) + 10 * (i % 2)}\n" for i in range(70))


@pytest.fixture(scope="module")
def table_run(train_once, tmp_path_factory):
    file = tmp_path_factory.mktemp("table") / "train.csv"
    file.write_text("x,kind,y\n" + TABLE)
    return train_once(
        "model=mlp",
        "data=table_csv",
        f"data.path={file}",
        "data.target=y",
        "data.units=mm",
        "data.batch_size=7",
        "optimizer.lr=0.02",
        "trainer.precision=fp32",
        "trainer.max_epochs=20",
        "trainer.eval_every_epochs=10",
    )


def test_predictions_for_a_csv_file_have_units(table_run, tmp_path, capsys):
    assert summary(table_run)["test/rmse"] < 1
    file, answers = tmp_path / "new.csv", tmp_path / "out.json"
    file.write_text("kind;x;comment\na;2;\nb;5;first\nc;;\n")
    assert main([str(table_run), str(file), "--json", str(answers)]) == 0
    out, err = (text.splitlines() for text in capsys.readouterr())
    rows = json.loads(answers.read_text())
    assert [(row["input"], row["target"], row["unit"]) for row in rows] == [
        (f"{file}:{line}", "y", "mm") for line in (2, 3, 4)
    ]
    assert [row["value"] for row in rows[:2]] == pytest.approx([4, 20], abs=2)
    assert out[0] == f"{file}:2  y  {rows[0]['value']:.6g} mm"
    assert err == [
        f"note: {file}: x is missing, which it never is in training",
        f"note: {file}: a kind unseen in training, such as c",
    ]
    file.write_text("kind;x\na;two\n")
    assert main([str(table_run), str(file)]) == 1
    assert "line 2: x=two should be a number" in capsys.readouterr().err
    assert main([str(table_run), "--num-samples", "3"]) == 1
    assert "predicts numbers from rows of tables: give it CSV files" in capsys.readouterr().err


def test_predict_reproduces_test_metrics(table_run, capsys):
    assert main([str(table_run), "--test"]) == 0
    assert capsys.readouterr().out.count("(as recorded)") == 4


@pytest.mark.slow
def test_onnx_export_returns_values_in_units(table_run, tmp_path, capsys):
    assert main([str(table_run), "--export", "onnx", "--output", str(tmp_path)]) == 0
    assert "7 of 7" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    rows = torch.tensor([[2.0, 0.0], [5.0, 1.0], [torch.nan, 0.0]]).numpy()
    (values,) = session.run(["values"], {"rows": rows})
    assert values[:2, 0].tolist() == pytest.approx([4, 20], abs=2)
