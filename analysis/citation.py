"""What a paper says of a comparison: the result in a sentence, the methods in a paragraph."""

from collections.abc import Callable
from typing import Any

from analysis.caveats import length
from analysis.comparison import Comparison
from analysis.provenance import counted, data_set, hardware
from analysis.runs import Run
from analysis.study import Study
from analysis.wording import NO_DIFFERENCE, WORSE, in_words, listed, verdict, with_p, words

SAMPLERS = {"tpe": "TPE", "sobol": "Sobol", "halton": "Halton"}


def sentence(comparison: Comparison) -> str:
    """The outcome, with everything that a reader needs to weigh it."""
    metric, best = comparison.question.decides, comparison.best
    estimate = comparison.value(best)
    assert estimate is not None  # without a value there is no comparison
    parts = [f"{setting(comparison)}{best.name} reached a {words(metric)} of "
             f"{in_words(metric, estimate)}"]  # fmt: skip
    others = [row for row in comparison.rows[1:] if comparison.value(row) is not None]
    for said, opening in (
        (WORSE, "detectably better than"),
        (NO_DIFFERENCE, "not detectably different from"),
    ):
        if names := [with_p(row, metric) for row in others if verdict(row) == said]:
            parts.append(f"{opening} {listed(names)}")
    tests = tests_used(comparison)
    how = f" ({listed(tests)} over seeds, p-values corrected by Holm's method)" if tests else ""
    return f"{', '.join(parts)}{how}."


def setting(comparison: Comparison) -> str:
    runs = used(comparison)
    where = [data_set(run.summary) for run in runs]
    models = [run.choices.get("model") for run in runs]
    if len({*where}) > 1 or not where[0]:
        return ""
    with_model = f" with {models[0]}" if len({*models}) == 1 and models[0] else ""
    return f"On {where[0]}{with_model}, "


def methods(comparison: Comparison, studies: list[Study]) -> str:
    """The protocol as a paragraph of methods; what a run did not record is left out."""
    question = comparison.question
    names = [row.name for row in comparison.rows]
    seeds = sorted({run.seed for run in used(comparison)}, key=lambda seed: (len(seed), seed))
    validation = words(question.validation)
    said = [f"We compared {len(names)} candidates ({listed(names, most=12)})"]
    said[0] += f" on {values(comparison, lambda run: describe_data(run.summary))}."
    if model := values(comparison, describe_model):
        said.append(f"The model was {model}, trained for {values(comparison, length)}.")
    tuned = [study for study in studies if study.protocol]
    said += [tuning(study, validation) for study in tuned]
    if any(row.is_chosen for row in comparison.rows):
        most = max(row.num_settings for row in comparison.rows)
        said.append(f"Of up to {most} settings a candidate, the best in {validation} is reported.")
    said.append(f"Each candidate was trained with the seeds {listed(seeds, most=12)}.")
    if question.test:
        said.append(f"The weights with the best {validation} of each run were tested once.")
    text = "We report means over seeds with 95 % t-intervals"
    if tests := tests_used(comparison):
        text += f"; differences to {comparison.best.name} were tested at the 5 % level by "
        text += f"{listed(tests)}, corrected for all pairs by Holm's method"
    said.append(f"{text}.")
    if diverged := sum(row.num_diverged for row in comparison.rows):
        said.append(f"{diverged} of the reported runs diverged.")
    used_for = [
        values(comparison, lambda run: run.summary.get("precision")),
        values(comparison, lambda run: hardware(run.summary)),
        values(comparison, torch_version),
    ]
    if where := [part for part in used_for if part]:
        said.append(f"Precision, hardware and software: {'; '.join(where)}.")
    return " ".join(said)


def tuning(study: Study, validation: str) -> str:
    """What each candidate of a study was given before it was judged."""
    protocol = study.protocol
    sampler = SAMPLERS.get(str(protocol.get("sampler")), protocol.get("sampler"))
    text = (
        f"Each was tuned by {protocol.get('trials')} trials ({sampler} sampling) on "
        f"{seeds_of(protocol.get('tune_seeds'))}"
    )
    if halving := protocol.get("halving"):
        rungs = listed([f"{100 * rung:g} %" for rung in halving["rungs"]])
        text += f", with successive halving at {rungs} of the updates (keeping {halving['keep']:g})"
    if protocol.get("repeat_seeds"):
        text += (
            f"; the setting with the best {validation} was then repeated on "
            f"{seeds_of(protocol['repeat_seeds'])}, not used in tuning"
        )
    return f"{text}."


def seeds_of(seeds: Any) -> str:
    found = [str(seed) for seed in seeds or []]
    return f"seed{'s' * (len(found) != 1)} {listed(found, most=12)}"


def describe_data(summary: dict[str, Any]) -> str | None:
    name, sizes = data_set(summary), summary.get("num_samples")
    if not name or not isinstance(sizes, dict):
        return name
    splits = {"train": "training", "val": "validation", "test": "test"}
    counts = [f"{count:,} {splits.get(key, key)}" for key, count in sizes.items()]
    return f"{name} ({listed(counts)} samples; batch size {summary.get('batch_size')})"


def describe_model(run: Run) -> str | None:
    parameters = run.number("num_parameters")
    name = run.choices.get("model")
    return f"{name} ({parameters:,.0f} parameters)" if name and parameters else None


def torch_version(run: Run) -> str | None:
    versions = run.summary.get("versions")
    found = versions.get("torch") if isinstance(versions, dict) else None
    return f"PyTorch {found}" if found else None


def values(comparison: Comparison, value_of: Callable[[Run], Any]) -> str:
    return "; ".join(counted(used(comparison), value_of))


def used(comparison: Comparison) -> list[Run]:
    return [run for row in comparison.rows for run in row.runs]


def tests_used(comparison: Comparison) -> list[str]:
    diffs = [row.versus_best for row in comparison.rows]
    return sorted({test_name(diff.test) for diff in diffs if diff and diff.test})


def test_name(test: str) -> str:
    return f"{test}-tests" if test.endswith("t") else f"{test} tests"
