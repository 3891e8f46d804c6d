"""report.py on sweeps as they come: sound, odd and broken ones."""

import json
import math
import re
import shutil
from html.parser import HTMLParser

import pandas as pd
import pytest
import yaml

import report
from tests.analysis.run_directories import edit, write_run


@pytest.fixture
def run_report(capsys):
    """``run_report(sweep, ...)``: exit code, standard output, standard error."""

    def run(*arguments):
        code = report.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, " ".join(out.split()), err

    return run


def test_a_sound_sweep(sweep, run_report):
    folder = sweep(("sgd_cosine", "adam_constant", "adamw_warmup_cosine"))
    code, out, _ = run_report(folder)
    table = pd.read_csv(folder / "report.csv").set_index("candidate")
    assert code == 0
    assert set(table["n"]) == {5}
    assert table.loc["adam_constant", "verdict"] == "worse"
    assert set(table["verdict"]) == {"best", "worse", "no detectable difference"}
    assert (table["state_bytes_per_parameter"] == 8).all()
    assert "No detectable difference from it" in out
    assert "note" not in out, "nothing to warn of"


def test_the_csv_holds_the_numbers(sweep, run_report):
    folder = sweep()
    run_report(folder)
    row = pd.read_csv(folder / "report.csv").set_index("candidate").loc["sgd_cosine"]
    runs = [json.loads((folder / str(job) / "summary.json").read_text()) for job in range(5)]
    assert row["test/accuracy"] == pytest.approx(sum(run["test/accuracy"] for run in runs) / 5)
    assert row["val/accuracy_low"] < row["val/accuracy"] < row["val/accuracy_high"]
    assert row["target_steps"] == 30
    assert row["target_seconds"] == pytest.approx(3.0)


class Page(HTMLParser):
    """Collects what a browser would load or run, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.links, self.texts = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_the_page_stands_alone(sweep, run_report):
    folder = sweep(lrs=(0.01, 0.1, 1.0))
    run_report(folder)
    html = (folder / "report.html").read_text()
    page = Page(html)
    assert not page.links
    assert "script" not in page.tags
    assert "url(" not in html
    assert "@import" not in html
    titles = {
        "test/accuracy by candidate",
        "test/accuracy against training seconds",
        "expected best val/accuracy after k trials",
        "val/accuracy by optimizer.lr",
        "val/accuracy over updates",
        "val/accuracy over training seconds",
        "optim/lr over updates",
    }
    assert titles <= set(page.texts)
    assert "nan" not in html.lower()


def test_every_string_of_a_run_is_escaped(tmp_path, run_report):
    evil = "<script>alert(1)</script>"
    for seed in (0, 1):
        write_run(tmp_path / str(seed), f"a{evil}", seed, device=evil, versions={evil: evil})
    write_run(tmp_path / "2", "b", 0, status="failed")
    edit(tmp_path / "2", error=evil, overrides=[evil])
    code, _, _ = run_report(tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert code == 0
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_nothing_in_a_run_is_executed(tmp_path, run_report):
    write_run(tmp_path / "0")
    bomb = "!!python/object/apply:os.mkdir [%s]" % (tmp_path / "made")
    (tmp_path / "0" / "config.yaml").write_text(bomb)
    run_report(tmp_path)
    assert not (tmp_path / "made").exists()


def test_settings_are_tuned_and_failures_shown(sweep, run_report):
    folder = sweep(seeds=range(3), lrs=(0.01, 0.1))
    write_run(folder / "90", "sgd_cosine", 0, lr=10.0, status="diverged")
    write_run(folder / "91", "sgd_cosine", 0, lr=0.05, level=0.97)
    code, out, _ = run_report(folder)
    table = pd.read_csv(folder / "report.csv").set_index("candidate")
    assert code == 0
    assert table.loc["sgd_cosine", "best_setting"] == "lr=0.05"
    assert table.loc["sgd_cosine", "num_settings"] == 4
    assert table.loc["sgd_cosine", "num_diverged"] == 1
    assert "Unequal budgets, in settings tried: adam_constant 2, sgd_cosine 4" in out
    assert "One seed only for sgd_cosine" in out
    assert "broke down</title>" in (folder / "report.html").read_text()


def test_a_sweep_of_numbers_alone_compares_them(sweep, run_report):
    folder = sweep(("sgd_cosine",), seeds=range(2), lrs=(0.1, 0.2))
    run_report(folder)
    assert set(pd.read_csv(folder / "report.csv")["candidate"]) == {"lr=0.1", "lr=0.2"}


def test_settings_of_two_phases_are_told_apart(tmp_path, run_report):
    for number, (generator, discriminator) in enumerate([(1e-4, 2e-4), (3e-4, 1e-4)]):
        rates = {"generator": generator, "discriminator": discriminator}
        phases = {phase: {"optimizer": {"lr": rate}} for phase, rate in rates.items()}
        write_run(tmp_path / str(number), config={"phases": phases})
    run_report(tmp_path)
    assert set(pd.read_csv(tmp_path / "report.csv")["candidate"]) == {
        "discriminator.optimizer.lr=0.0002, generator.optimizer.lr=0.0001",
        "discriminator.optimizer.lr=0.0001, generator.optimizer.lr=0.0003",
    }


def test_by_names_the_axes(sweep, run_report):
    folder = sweep(seeds=range(2), lrs=(0.1, 0.2))
    assert run_report(folder, "--by", "optimizer.lr")[0] == 0
    assert set(pd.read_csv(folder / "report.csv")["candidate"]) == {"lr=0.1", "lr=0.2"}
    code, _, err = run_report(folder, "--by", "optimiser.lr")
    assert (code, err) == (
        1,
        "error: --by optimiser.lr: no run has such a group or key; did you mean optimizer.lr?\n",
    )


def test_several_run_directories(tmp_path, run_report, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [write_run(tmp_path / "a", "sgd_cosine"), write_run(tmp_path / "b", "adam_constant")]
    assert run_report(*runs)[0] == 0
    assert (tmp_path / "report" / "report.html").is_file()


# ---- bad input ----


def test_no_such_directory(tmp_path, run_report):
    code, _, err = run_report(tmp_path / "typo")
    assert code == 1
    assert err == f"error: {tmp_path / 'typo'}: no such directory\n"


def test_no_run_directory(tmp_path, run_report):
    code, _, err = run_report(tmp_path)
    assert code == 1
    assert "no run directory in it" in err


def test_runs_that_were_all_killed(sweep, run_report):
    """Their configs tell what they monitored; that none has finished is the reason."""
    folder = sweep(seeds=range(1))
    for run_dir in folder.iterdir():
        (run_dir / "summary.json").unlink()
    assert run_report(folder)[2] == "error: no run has finished (2 unfinished)\n"


def test_a_run_that_monitored_nothing_stops_no_report(sweep, run_report):
    folder = sweep()
    edit(folder / "3", monitor=None)
    code, _, _ = run_report(folder)
    assert code == 0
    assert pd.read_csv(folder / "report.csv")["n"].tolist() == [5, 5]


def test_no_finished_run(sweep, run_report):
    folder = sweep(seeds=range(1), status="failed")
    edit(folder / "0", error="ConfigError: no data")
    (folder / "1" / "summary.json").unlink()
    code, _, err = run_report(folder)
    assert code == 1
    assert err == (
        "error: no run has finished (1 failed, 1 unfinished); "
        "the first error: ConfigError: no data\n"
    )


def test_all_diverged(sweep, run_report):
    code, _, err = run_report(sweep(status="diverged"))
    assert code == 1
    assert "no run has finished (10 diverged)" in err


def test_one_candidate_all_diverged(sweep, run_report):
    folder = sweep(("sgd_cosine",))
    write_run(folder / "90", "adam_constant", status="diverged")
    code, out, _ = run_report(folder)
    assert code == 0
    assert "Without a finished run: adam_constant" in out


def test_different_monitors(sweep, run_report):
    folder = sweep()
    edit(folder / "3", monitor="val/loss", monitor_mode="min")
    code, _, err = run_report(folder)
    assert code == 1
    assert "val/accuracy (9 runs), val/loss (1 runs): choose with --metric" in err
    assert run_report(folder, "--metric", "val/accuracy")[0] == 0


def test_an_unknown_metric(sweep, run_report):
    folder = sweep()
    code, _, err = run_report(folder, "--metric", "val/f1", "--mode", "max")
    assert code == 1
    assert "no finished run has val/f1; there are optim/lr, train/loss, val/accuracy" in err
    assert "--mode max or --mode min" in run_report(folder, "--metric", "val/f1")[2]


def test_a_metric_that_some_runs_lack(sweep, run_report):
    folder = sweep()
    edit(folder / "0", **{"test/accuracy": None})
    code, out, _ = run_report(folder)
    table = pd.read_csv(folder / "report.csv").set_index("candidate")
    assert code == 0
    assert "Left out of sgd_cosine, for test/accuracy is missing or no number: 0." in out
    assert table["n"].to_dict() == {"sgd_cosine": 4, "adam_constant": 5}
    assert set(table["compared_on"]) == {"test/accuracy"}
    for seed in range(1, 5):
        edit(folder / str(seed), **{"test/accuracy": None})
    out = run_report(folder)[1]
    assert "No run of sgd_cosine has test/accuracy: candidates are compared on val/accuracy" in out


def test_a_finished_run_without_a_number(sweep, run_report):
    folder = sweep()
    edit(folder / "3", best={"value": None})
    (folder / "3" / "metrics.jsonl").write_text("")
    code, out, _ = run_report(folder)
    assert code == 0
    assert "Left out of sgd_cosine, for val/accuracy is missing or no number: 3." in out
    assert "Unequal numbers of seeds, from 4 to 5" in out


# ---- runs that diverged ----


def test_survivors_are_not_crowned(sweep, run_report):
    """Of eight seeds of the better optimizer five diverged: it is ranked below, and not tested."""
    folder = sweep(("adam_constant", "adamw_warmup_cosine"), seeds=range(8))
    for seed in range(8):
        write_run(
            folder / f"wild{seed}", "wild", seed, level=0.99,
            status="diverged" if seed > 2 else "completed",
        )  # fmt: skip
    out = run_report(folder)[1]
    table = pd.read_csv(folder / "report.csv")
    assert table["candidate"].tolist() == ["adamw_warmup_cosine", "adam_constant", "wild"]
    assert table["verdict"].tolist() == ["best", "worse", "seeds diverged"]
    assert table["num_seeds_diverged"].tolist() == [0, 0, 5]
    assert math.isnan(table["p"][2])
    assert "adamw_warmup_cosine has the best mean test/accuracy" in out
    assert "survivors tell only half of it: wild (5 of 8 seeds diverged), 98." in out
    assert "│ 3 of 8 │" in out


def test_where_every_candidate_has_seeds_that_diverged(sweep, run_report):
    folder = sweep()
    for job in (0, 5, 6):
        edit(folder / str(job), status="diverged", best=None)
    out = run_report(folder)[1]
    assert "Every candidate has seeds that diverged: of sgd_cosine (1 of 5 seeds diverged)." in out
    assert "orse: adam_constant" not in out


def test_one_seed_only(sweep, run_report):
    folder = sweep(seeds=range(1))
    code, out, _ = run_report(folder)
    assert code == 0
    assert "no interval, and no claim" in out
    assert "Too few seeds to tell the difference from chance" in out
    assert "p by" not in out
    assert pd.read_csv(folder / "report.csv")["p"].isna().all()


def test_nan_in_records(sweep, run_report):
    folder = sweep()
    with (folder / "0" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "seconds": 4.0, "train/loss": NaN, "val/accuracy": Infinity}\n')
    edit(folder / "0", best={"value": None}, train_seconds=math.nan)
    code, _, _ = run_report(folder)
    assert code == 0
    assert "nan" not in (folder / "report.html").read_text().lower()


def test_half_written_records(sweep, run_report):
    folder = sweep()
    file = folder / "0" / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-20] + b"\xff\xfe\n[1]\n")
    (folder / "1" / "summary.json").write_text('{"status": "comp')
    (folder / "2" / "config.yaml").write_text("seed: [")
    code, out, _ = run_report(folder)
    assert code == 0
    assert "2 damaged lines" in out
    assert "Of 10 runs, 1 unfinished" in out
    assert "Runs without a readable config, so of no known candidate: 2" in out


def test_empty_run_directories(sweep, run_report):
    folder = sweep()
    (folder / "90" / ".hydra").mkdir(parents=True)
    for name in ("metrics.jsonl", "config.yaml"):
        (folder / "0" / name).unlink()
    assert run_report(folder)[0] == 0


@pytest.mark.parametrize("value", [3, "text", [1], {"a": [1]}, None])
def test_values_of_another_kind(sweep, run_report, value):
    """A record by another version, or edited by hand."""
    folder = sweep()
    edit(
        folder / "0",
        **dict.fromkeys(json.loads((folder / "0" / "summary.json").read_text()), value),
    )
    edit(folder / "1", status="completed", **dict.fromkeys(("seed", "best", "versions"), value))
    (folder / "2" / "config.yaml").write_text(
        yaml.safe_dump(dict.fromkeys(("trainer", "model"), value))
    )
    (folder / "3" / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": value}))
    assert run_report(folder, "--metric", "val/accuracy", "--mode", "max")[0] == 0


def test_an_unwritable_directory(sweep, tmp_path, run_report):
    (tmp_path / "file").write_text("")
    code, _, err = run_report(sweep(), "--output", tmp_path / "file")
    assert code == 1
    assert err == f"error: cannot write {tmp_path / 'file'}: File exists\n"


def test_intervals_end_at_what_is_possible(sweep, run_report):
    """Two seeds make t-intervals wide: beyond 100 % of an accuracy, and below 0 ms."""
    folder = sweep(("sgd_cosine", "adam_constant"), seeds=range(2), level=0.995)
    for job, milliseconds in enumerate((0.1, 5.0, 0.1, 5.0)):
        edit(folder / str(job), optimizer_step_ms=milliseconds)
    edit(folder / "0", best={"value": 0.999})
    out = run_report(folder)[1]
    table = pd.read_csv(folder / "report.csv")
    assert (table["optimizer_step_ms_low"] == 0).all()
    assert (table["val/accuracy_high"] <= 1).all()
    assert ", 100.00]" in out
    assert "Intervals end at what is possible: 0, and 100 % of a share." in out


def test_forty_candidates_can_be_read(sweep, run_report):
    folder = sweep(tuple(f"optimizer{i:02d}" for i in range(40)), seeds=range(2), lrs=(0.1, 0.2))
    out = run_report(folder)[1]
    html = (folder / "report.html").read_text()
    claim = out[out.index("No detectable difference from it") :].split(". ")[0]
    assert len(claim) < 700
    assert "more" in claim
    assert '<span class="key series other"><i></i>24 more</span>' in html


def test_trials_are_counted_in_whole_numbers(sweep, run_report):
    folder = sweep(seeds=range(1), lrs=(0.1, 0.2, 0.3))
    run_report(folder)
    html = (folder / "report.html").read_text()
    figure = html[html.index("expected best val/accuracy after k trials</figcaption>") :]
    ticks = re.findall(r'text-anchor="middle">([^<]*)<', figure[: figure.index("</svg>")])
    assert ticks == ["1", "2", "3", "trials"]


def test_two_hundred_runs(sweep, run_report):
    folder = sweep(
        tuple(f"optimizer{i}" for i in range(20)), seeds=range(2), lrs=(0.01, 0.1, 1, 2, 3)
    )
    code, _, _ = run_report(folder)
    assert code == 0
    assert len(pd.read_csv(folder / "report.csv")) == 20
    assert (folder / "report.html").stat().st_size < 1_000_000


# ---- not like for like ----


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"precision": "bf16"}, "Not the same precision: "),
        ({"hardware": "other", "device": "cuda"}, "Not the same device: "),
        ({"git_dirty": True}, "1 of 10 runs had uncommitted changes"),
        ({"data_order_hash": "other"}, "Not the same order of samples for the same seed (0)"),
        ({"initial_weights_hash": "other"}, "Not the same initial weights for the same seed (0)"),
        ({"synthetic_data": True}, "1 of 10 runs used synthetic data"),
        ({"git_commit": "fedcba"}, "Not the same commit: "),
    ],
)
def test_caveats(sweep, run_report, changes, said):
    folder = sweep()
    edit(folder / "0", **changes)
    assert said in run_report(folder)[1]


def test_unequal_lengths(sweep, run_report):
    folder = sweep()
    config = yaml.safe_load((folder / "0" / "config.yaml").read_text())
    for job in range(5):
        shutil.rmtree(folder / str(job))
        write_run(
            folder / str(job),
            seed=job,
            config={**config, "seed": job, "trainer": {"max_epochs": 9}},
        )
    assert (
        "Not the same length: 9 epochs (sgd_cosine); 3 epochs (adam_constant)"
        in run_report(folder)[1]
    )


def test_few_seeds_and_the_edge_of_the_search(sweep, run_report):
    folder = sweep(seeds=range(2), lrs=(0.1, 0.2, 0.3))
    write_run(folder / "90", lr=0.4, level=0.99)
    out = run_report(folder)[1]
    assert "The best optimizer.lr of sgd_cosine is the highest tried" in out
    assert "optimistic" in out


@pytest.mark.slow
def test_a_real_sweep(command, tmp_path, run_report, data_root):
    done = command(
        "train.py", "-m", "optim=sgd_cosine,adam_constant", "seed=0,1", "debug=fast",
        "wandb.mode=disabled", f"data.root={data_root}", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = command("report.py", "sweep")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sweep" / "report.html").is_file()
    assert set(pd.read_csv(tmp_path / "sweep" / "report.csv")["n"]) == {2}
    assert "not paired" not in done.stdout, "one seed means one order of samples"


def test_equals_are_rarely_told_apart(sweep, run_report):
    """The best of seven equals was chosen by what is tested: all 21 pairs count."""
    optims = tuple(f"equal{i}" for i in range(7))
    folder = sweep(optims, seeds=range(5))
    run_report(folder)
    table = pd.read_csv(folder / "report.csv")
    ranked = table["p"].dropna().sort_values()
    assert table["p_holm"].min() >= min(1.0, ranked.iloc[0] * 7)


def test_a_machine_that_was_not_equally_busy(sweep, run_report):
    folder = sweep()
    assert "not equally busy" not in run_report(folder)[1]
    for run_dir in folder.iterdir():
        if run_dir.is_dir() and json.loads((run_dir / "summary.json").read_text())["seed"] > 1:
            edit(run_dir, step_ms=180.0)
    assert "not equally busy" not in run_report(folder)[1], "the same for both candidates"
    for run_dir in folder.iterdir():
        if run_dir.is_dir() and "adam" in (run_dir / "config.yaml").read_text():
            edit(run_dir, step_ms=300.0)
    assert "a step took 148 ms for sgd_cosine and 300 ms for adam_constant" in run_report(folder)[1]


def test_where_a_swept_number_reaches_the_target(sweep, run_report):
    folder = sweep(seeds=range(2), lrs=(0.01, 0.1, 1.0))
    run_report(folder, "--target", "0.94")
    html = (folder / "report.html").read_text()
    assert "of 94.00% is reached: sgd_cosine from 0.01 to 1; adam_constant nowhere" in html


def test_hopeless_trials_do_not_flatten_a_figure(sweep, run_report):
    folder = sweep(seeds=range(1), lrs=(0.01, 0.02, 0.1, 1.0))
    write_run(folder / "hopeless", "sgd_cosine", 0, 5.0, level=0.1)
    run_report(folder)
    assert "What is worse than " in (folder / "report.html").read_text()
