"""report.py on typical sweeps: what it prints and the files it writes."""

import json
import re
import tracemalloc
from statistics import mean

import pandas as pd
import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image

from analysis.comparison import compare
from analysis.figures import figures_of
from analysis.plot import OTHER, Palette, Plot
from analysis.runs import DRAWN_PARTS, read_run
from analysis.sweep import read_sweep
from tests.analysis.run_directories import edit_summary, figure_of, write_run


def test_report_of_a_complete_sweep(sweep, run_report):
    folder = sweep(("sgd_cosine", "adam_constant", "adamw_warmup_cosine"))
    out, table = run_report(folder)
    assert set(table["n"]) == {5}
    assert table.loc["adam_constant", "verdict"] == "worse"
    assert set(table["verdict"]) == {"may be best", "worse"}
    assert "Any of 2 candidates may have the best test accuracy: " in out
    assert "has the best" not in out, "the data do not show this"
    assert "This holds for these settings, not for the candidates in general" in out
    assert "note" not in out, "this sweep has no caveats"
    row = table.loc["sgd_cosine"]
    runs = [json.loads((folder / str(job) / "summary.json").read_text()) for job in range(5)]
    assert row["test/accuracy"] == pytest.approx(sum(run["test/accuracy"] for run in runs) / 5)
    assert row["val/accuracy_low"] < row["val/accuracy"] < row["val/accuracy_high"]
    assert row["state_bytes_per_parameter"] == 8
    assert row["target_1_steps"] == 30
    assert row["target_1_seconds"] == pytest.approx(3.0)


def test_failing_page_leaves_earlier_report(sweep, run_report, monkeypatch):
    folder = sweep(("sgd_cosine", "adam_constant"))
    run_report(folder)
    write_run(folder / "later", "radam_cosine", 0)
    before = (folder / "report.csv").read_text()
    monkeypatch.setattr("analysis.page.Document.page", lambda report: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_report(folder)
    assert (folder / "report.csv").read_text() == before


@pytest.mark.usefixtures("draw_figures")
def test_page_is_self_contained_escaped_and_complete(tmp_path, run_report):
    """The page loads nothing, escapes all text from runs, and shows every trial."""
    evil = "<script>alert(1)</script>"
    for lr in (0.01, 0.02, 0.1, 1.0):
        for optim in (f"a{evil}", "sgd_cosine"):
            write_run(
                tmp_path / f"{lr}{optim[0]}", optim, 0, lr, device=evil, versions={"torch": evil}
            )
    write_run(tmp_path / "outlier", "sgd_cosine", 0, 5.0, accuracy=0.1)
    write_run(tmp_path / "broken", "sgd_cosine", 0, 10.0, status="diverged", error=evil)
    for optim in (f"a{evil}", "sgd_cosine"):
        write_run(tmp_path / f"again{optim[0]}", optim, 1, 0.1)
    edit_summary(tmp_path / "broken", overrides=[evil])
    with (tmp_path / "0.1s" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "seconds": 4.0, "train/loss": null, "val/accuracy": null}\n')
    run_report(tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert not re.search(r"<script|@import| src=| href=|nan|url\((?!#)", html)
    assert "&lt;script&gt;" in html
    for title in (
        "test accuracy by candidate",
        "test accuracy against training time",
        "expected best test accuracy after k trials",
        "validation accuracy by optimizer.lr",
        "validation accuracy over updates",
        "validation accuracy over training time",
        "learning rate over updates",
    ):
        assert f"<figcaption>{title}</figcaption>" in html
    figure = figure_of(html, "validation accuracy by optimizer.lr")
    value = json.loads((tmp_path / "outlier" / "summary.json").read_text())["best"]["value"]
    assert f"Arrows, off scale: sgd_cosine at 5: {value:.2%}." in figure
    ticks = [float(text) for text in re.findall(r">(\d+(?:\.\d+)?)%</text>", figure)]
    assert min(ticks) > 80, "the axis excludes the outlier"
    assert "diverged or failed</title>" in figure
    figure = figure_of(html, "expected best test accuracy after k trials")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", figure)
    assert texts[: texts.index("trials")] == ["1", "2", "3", "4", "5", "6"]


def test_figure_of_validation_against_training_loss(tmp_path):
    """The curve averages over seeds and omits evaluations that follow a lower training loss."""
    for seed in (0, 1):
        file = write_run(tmp_path / f"{seed}", seed=seed) / "metrics.jsonl"
        with file.open("a") as records:
            for step, loss in ((10, 0.2), (20, 0.3), (30, 0.1)):
                event = {"step": step, "seconds": step, "train_eval/loss": loss + seed / 10}
                records.write(json.dumps(event) + "\n")
    write_run(tmp_path / "not_measured", seed=2)
    comparison = compare(read_sweep([tmp_path], []).runs)
    by_title = {figure.title: figure for figure in figures_of(comparison)["training"]}
    assert "training subset loss over updates" in by_title
    figure = by_title["validation accuracy against training subset loss"]
    assert "the higher curve generalizes better" in figure.note
    axes = Canvas().subplots()
    figure.draw(Plot(axes, Palette(figure.names)))
    line = axes.lines[0]
    finals = [run.validation for run in comparison.used[:2]]
    assert line.get_xdata() == pytest.approx([0.25, 0.15])
    assert line.get_ydata() == pytest.approx([mean(finals) / 3, mean(finals)])


def test_memory_of_a_long_run_is_bounded(tmp_path):
    """All evaluations are kept; curves that are only drawn are thinned to a figure's resolution."""
    num_steps = 5000
    path = write_run(tmp_path / "run", horizon_steps=num_steps)
    with (path / "metrics.jsonl").open("w") as records:
        for step in range(1, num_steps + 1):
            event = {"step": step, "seconds": step / 7, "train/loss": 1 / step, "optim/lr": step}
            event |= {f"train/metric_{i}": step for i in range(6)}
            event |= {"val/accuracy": step / num_steps} if step % 20 == 0 else {}
            records.write(json.dumps(event) + "\n")
    tracemalloc.start()
    run = read_run(path, "run")
    num_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_bytes < 150_000, "all records of the run would take a million"
    assert run.curve("val/accuracy")["step"].tolist() == list(range(20, num_steps + 1, 20))
    for name in ("train/loss", "optim/lr"):
        assert DRAWN_PARTS <= len(run.curve(name)) <= DRAWN_PARTS + 1
    assert "train/metric_5" in run.metrics


def test_settings_are_selected_by_validation(sweep, run_report):
    folder = sweep(seeds=range(3), lrs=(0.01, 0.1))
    write_run(folder / "90", "sgd_cosine", 0, lr=10.0, status="diverged")
    write_run(folder / "91", "sgd_cosine", 0, lr=0.05, accuracy=0.97)
    out, table = run_report(folder, "--target", "0.94")
    assert table.loc["sgd_cosine", "best_setting"] == "optimizer.lr=0.05"
    assert table.loc["sgd_cosine", "num_settings"] == 4
    assert table.loc["sgd_cosine", "num_diverged"] == 1
    assert "Unequal tuning budgets (settings tried): adam_constant 2, sgd_cosine 4" in out
    assert "Only one seed for sgd_cosine" in out
    html = (folder / "report.html").read_text()
    assert "of 94.00% is reached: sgd_cosine from 0.01 to 0.1; adam_constant nowhere" in html


def test_candidates_are_settings_if_nothing_else_differs(sweep, run_report):
    folder = sweep(("sgd_cosine",), seeds=range(2), lrs=(0.1, 0.2))
    assert set(run_report(folder)[1].index) == {"optimizer.lr=0.1", "optimizer.lr=0.2"}
    write_run(folder / "90", "adam_constant", lr=0.1)
    assert set(run_report(folder)[1].index) == {"sgd_cosine", "adam_constant"}
    assert set(run_report(folder, "--by", "optimizer.lr")[1].index) == {
        "optimizer.lr=0.1",
        "optimizer.lr=0.2",
    }


def test_settings_include_their_phase(tmp_path, run_report):
    for number, (generator, discriminator) in enumerate([(1e-4, 2e-4), (3e-4, 1e-4)]):
        rates = {"generator": generator, "discriminator": discriminator}
        phases = {phase: {"optimizer": {"lr": rate}} for phase, rate in rates.items()}
        write_run(tmp_path / str(number), config={"phases": phases})
    assert set(run_report(tmp_path)[1].index) == {
        "phases.discriminator.optimizer.lr=0.0002, phases.generator.optimizer.lr=0.0001",
        "phases.discriminator.optimizer.lr=0.0001, phases.generator.optimizer.lr=0.0003",
    }


def test_run_directories_can_be_passed_one_by_one(sweep, run_report, monkeypatch, tmp_path):
    """A shell expands ``multirun/mine/*`` to these and Hydra's multirun.yaml, which is ignored."""
    folder = sweep()
    (folder / "multirun.yaml").write_text("hydra: {}")
    monkeypatch.chdir(tmp_path)
    assert len(run_report(*folder.iterdir())[1]) == 2
    assert (tmp_path / "report" / "report.html").is_file()


def test_intervals_are_clipped_to_the_possible_range(sweep, run_report):
    """Unclipped, t-intervals of two seeds would exceed 100 % accuracy and fall below 0 ms."""
    folder = sweep(("sgd_cosine", "adam_constant"), seeds=range(2), accuracy=0.995)
    for job, milliseconds in enumerate((0.1, 5.0, 0.1, 5.0)):
        edit_summary(folder / str(job), optimizer_step_ms=milliseconds)
    edit_summary(folder / "0", best={"value": 0.999})
    out, table = run_report(folder)
    assert (table["optimizer_step_ms_low"] == 0).all()
    assert (table["val/accuracy_high"] <= 1).all()
    assert ", 100.00]" in out
    assert "95 % t-intervals, clipped to the possible range (0 to 100 % for shares);" in out
    cells = re.findall(r"(?:sgd_cosine|adam_constant) │ 2 │ ([^│]+) │", out)
    assert len(cells) == 2
    assert all("[" in cell and "±" not in cell for cell in cells), "one notation per column"


def test_claim_names_at_most_six_candidates(sweep, run_report):
    out, _ = run_report(sweep(tuple(f"optimizer{i}" for i in range(8)), seeds=range(2)))
    assert "Any of 8 candidates may have the best test accuracy: " in out
    claim = out[out.index("accuracy: optimizer") :].split(" and 2 more.")[0]
    assert claim.count("; ") == 5


def test_candidate_colour_does_not_depend_on_the_others():
    """Neither the other names nor the order matter; the first sixteen candidates all differ."""
    small, large = Palette(["sgd", "adamw"]), Palette(["lamb", "adamw", "own_b", "sgd", "own_a"])
    for name in ("sgd", "adamw"):
        assert small[name] == large[name]
    assert Palette(["adamw_warmup_cosine"])["adamw_warmup_cosine"] == small["adamw"]
    assert len({large[name] for name in large.order}) == 5
    steps = Palette(["sgd_cosine", "sgd_step"])
    assert steps["sgd_cosine"] != steps["sgd_step"]
    many = Palette([f"own_{i}" for i in range(18)])
    assert many["own_16"] == many["own_17"] == OTHER, "there are sixteen styles"
    assert len({many[f"own_{i}"] for i in range(16)} - {OTHER}) == 16


def test_latex_table_and_markdown_report(sweep, tmp_path, run_report):
    tex, text = tmp_path / "table.tex", tmp_path / "report.md"
    run_report(sweep(), "--latex", tex, "--markdown", text)
    table = tex.read_text()
    for part in (r"\toprule", r"sgd\_cosine & 5 & ", r"\% $\pm$ ", r"\bottomrule"):
        assert part in table
    report = text.read_text()
    assert "| candidate | seeds | test accuracy | vs. best other (pp) | p (Holm) |" in report
    assert "\n| candidate | validation accuracy | to " in report
    cited = report[report.index("## To cite") :]
    assert re.search(r"sgd\\_cosine has the best test accuracy: 9\d\.\d\d% \[9", cited)
    assert "Detectably worse: adam" in cited
    assert "on mnist5k (3,500 training, 500 validation and 1,000 test samples; batch" in cited
    assert "trained with the seeds 0, 1, 2, 3 and 4." in cited
    assert "(paired t tests, p-values Holm-corrected over all pairs)" in cited


@pytest.mark.slow
def test_figures_are_saved_for_publication(sweep, tmp_path, run_report):
    run_report(sweep(), "--figures", tmp_path / "figures")
    names = {file.name for file in (tmp_path / "figures").iterdir()}
    for width, inches in (("column", 3.25), ("page", 6.75)):
        for kind in ("svg", "pdf", "png"):
            assert f"test_accuracy_by_candidate_{width}.{kind}" in names
        with Image.open(tmp_path / "figures" / f"learning_rate_over_updates_{width}.png") as image:
            assert image.width == pytest.approx(300 * inches, abs=1)
    pdf = (tmp_path / "figures" / "learning_rate_over_updates_page.pdf").read_bytes()
    assert b"/FontFile2" in pdf, "fonts must be embedded as TrueType"
    assert b"/Type3" not in pdf


@pytest.mark.slow
def test_report_of_a_trained_sweep(command, tmp_path, data_root):
    result = command(
        "train.py", "-m", "optim=sgd_cosine,adam_constant", "seed=0,1", "debug=fast",
        "wandb.mode=disabled", f"data.root={data_root}", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    result = command("report.py", "sweep")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "sweep" / "report.html").is_file()
    assert set(pd.read_csv(tmp_path / "sweep" / "report.csv")["n"]) == {2}
    assert "not truly paired" not in result.stdout, "runs of one seed share the order of samples"
