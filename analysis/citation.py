"""What a paper says of a comparison: the result in a sentence, the methods in a paragraph."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.comparison import Comparison
from analysis.provenance import counted, data, data_set, hardware, length, model, precision
from analysis.runs import Run, nested
from analysis.study import Study
from analysis.wording import NO_DIFFERENCE, WORSE, in_words, listed, verdict, with_p, words

SAMPLERS = {"tpe": "TPE", "sobol": "Sobol", "halton": "Halton"}
OPENINGS = {WORSE: "detectably better than", NO_DIFFERENCE: "not detectably different from"}


def sentence(comparison: Comparison) -> str:
    """The outcome, with everything that a reader needs to weigh it."""
    metric, best = comparison.question.decides, comparison.best
    parts = [f"{best.name} reached a {words(metric)} of {in_words(metric, best)}"]
    for said, opening in OPENINGS.items():
        if names := [with_p(row, metric) for row in comparison.rows[1:] if verdict(row) == said]:
            parts.append(f"{opening} {listed(names)}")
    tests = tests_used(comparison)
    how = f" ({listed(tests)} over seeds, p-values corrected by Holm's method)" if tests else ""
    return f"{where(comparison.used)}{', '.join(parts)}{how}."


def where(runs: Sequence[Run]) -> str:
    """``On mnist5k with lightcnn,`` where that is so of all runs."""
    sets = {data_set(run) for run in runs}
    models = {run.choices.get("model") for run in runs}
    if len(sets) > 1 or sets == {None}:
        return ""
    with_model = "" if len(models) > 1 or models == {None} else f" with {models.pop()}"
    return f"On {sets.pop()}{with_model}, "


def methods(comparison: Comparison, studies: Sequence[Study]) -> str:
    """The protocol as a paragraph of methods; what a run did not record is left out."""
    runs, rows = comparison.used, comparison.rows

    def of_runs(*facts: Callable[[Run], str | None]) -> str:
        return "; ".join(value for fact in facts for value in counted(runs, fact))

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"listed": listed, "seeds": seeds, "percent": percent}
    text = environment.get_template("methods.txt").render(
        names=[row.name for row in rows],
        data=of_runs(data),
        model=of_runs(model),
        length=of_runs(length),
        protocols=[study.protocol for study in studies if study.protocol],
        samplers=SAMPLERS,
        validation=words(comparison.question.validation),
        num_settings=max(row.num_settings * row.is_chosen for row in rows),
        run_seeds=sorted({run.seed for run in runs}, key=lambda seed: (len(seed), seed)),
        is_tested=comparison.question.is_tested,
        tests=tests_used(comparison),
        num_diverged=sum(row.num_diverged for row in rows),
        used=of_runs(precision, hardware, torch_version),
    )
    return " ".join(text.split())


def seeds(numbers: Sequence[Any]) -> str:
    return f"seed{'s' * (len(numbers) != 1)} {listed([str(n) for n in numbers], most=12)}"


def percent(share: float) -> str:
    return f"{100 * share:g} %"


def torch_version(run: Run) -> str | None:
    version = nested(run.summary, "versions", "torch")
    return f"PyTorch {version}" if version else None


def tests_used(comparison: Comparison) -> list[str]:
    tests = {row.versus_best.test for row in comparison.rows if row.versus_best} - {""}
    return sorted(f"{test}-tests" if test.endswith("t") else f"{test} tests" for test in tests)
