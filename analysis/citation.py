"""What a paper says of a comparison: the result in a sentence, the methods in a paragraph."""

from collections.abc import Iterator, Sequence
from typing import Any

from analysis.comparison import Comparison
from analysis.provenance import counted, data, data_set, hardware, length, model, precision
from analysis.runs import Run
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
    return " ".join(f"{said}." for said in protocol(comparison, studies))


def protocol(comparison: Comparison, studies: Sequence[Study]) -> Iterator[str]:
    question, runs = comparison.question, comparison.used
    validation = words(question.validation)

    def of_runs(*facts: Any) -> str:
        values = ["; ".join(counted(runs, fact)) for fact in facts]
        return "; ".join(value for value in values if value)

    names = [row.name for row in comparison.rows]
    yield f"We compared {len(names)} candidates ({listed(names, most=12)}) on {of_runs(data)}"
    if described := of_runs(model):
        yield f"The model was {described}, trained for {of_runs(length)}"
    for study in studies:
        if study.protocol:
            yield tuning(study.protocol, validation)
    if any(row.is_chosen for row in comparison.rows):
        most = max(row.num_settings for row in comparison.rows)
        yield f"Of up to {most} settings a candidate, the best in {validation} is reported"
    seeds = sorted({run.seed for run in runs}, key=lambda seed: (len(seed), seed))
    yield f"Each candidate was trained with the {seeds_in_words(seeds)}"
    if question.test:
        yield f"The weights with the best {validation} of each run were tested once"
    tested = (
        f"; differences to {comparison.best.name} were tested at the 5 % level by "
        f"{listed(tests)}, corrected for all pairs by Holm's method"
        if (tests := tests_used(comparison))
        else ""
    )
    yield f"We report means over seeds with 95 % t-intervals{tested}"
    if diverged := sum(row.num_diverged for row in comparison.rows):
        yield f"{diverged} of the reported runs diverged"
    if used_for := of_runs(precision, hardware, torch_version):
        yield f"Precision, hardware and software: {used_for}"


def tuning(protocol: dict[str, Any], validation: str) -> str:
    """What each candidate of a study was given before it was judged."""
    sampler = SAMPLERS.get(protocol["sampler"], protocol["sampler"])
    text = (
        f"Each was tuned by {protocol['trials']} trials ({sampler} sampling) on "
        f"{seeds_in_words(protocol['tune_seeds'])}"
    )
    if halving := protocol["halving"]:
        rungs = listed([f"{100 * rung:g} %" for rung in halving["rungs"]])
        text += f", with successive halving at {rungs} of the updates (keeping {halving['keep']:g})"
    if seeds := protocol["repeat_seeds"]:
        text += (
            f"; the setting with the best {validation} was then repeated on "
            f"{seeds_in_words(seeds)}, not used in tuning"
        )
    return text


def seeds_in_words(seeds: Sequence[object]) -> str:
    return f"seed{'s' * (len(seeds) != 1)} {listed([str(seed) for seed in seeds], most=12)}"


def torch_version(run: Run) -> str | None:
    versions = run.summary.get("versions")
    found = versions.get("torch") if isinstance(versions, dict) else None
    return f"PyTorch {found}" if found else None


def tests_used(comparison: Comparison) -> list[str]:
    differences = [row.versus_best for row in comparison.rows]
    tests = {difference.test for difference in differences if difference and difference.test}
    return sorted(f"{test}-tests" if test.endswith("t") else f"{test} tests" for test in tests)
