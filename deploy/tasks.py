"""The tasks of ``predict.py``: each prints its answers and returns them as rows."""

import argparse
import csv
import sys
from pathlib import Path

import torch

from core.errors import ConfigError, reason
from core.records import printable
from deploy.answers import ANSWERS, Answers, Rows
from deploy.arguments import flag
from deploy.finished_run import FinishedRun
from deploy.inputs import INPUTS, Inputs

Outcome = tuple[int, Rows]  # exit code, rows
# Objective.outputs of generative models -> (tasks, advice for the user)
GENERATORS: dict[str | None, tuple[tuple[str, ...], str]] = {
    "token_logits": (("prompt",), "continues text: use --prompt"),
    "images": (("num_samples",), "generates images: use --num-samples"),
}
MODEL_OPTIONS = ("invert", "top_k", "output")  # options that only some kinds of models support


def use_of(run: FinishedRun) -> tuple[Inputs, Answers]:
    """The inputs and answers of a model that predicts something for each sample.

    Raises:
        ConfigError: if the kind of its data or outputs is unknown.
    """
    inputs, answers = INPUTS.get(run.spec.kind), ANSWERS.get(run.outputs)
    if inputs is None or answers is None:
        raise ConfigError(
            f"the outputs of {run.config['objective']['_target_']} on data={run.spec.name} "
            "cannot be shown: only --test works for this run"
        )
    return inputs, answers(run.spec, run.config["objective"])


def check_task(run: FinishedRun, options: argparse.Namespace) -> None:
    """Check that the run supports the task, and that every option has an effect on it.

    Raises:
        ConfigError: naming the supported tasks, or the option.
    """
    if run.outputs in GENERATORS:
        tasks, advice = GENERATORS[run.outputs]
        if options.task not in tasks:
            raise ConfigError(f"the model of {run.run_dir} {advice}, or --test")
        return
    inputs, answers = use_of(run)
    what = f"{answers.verb} {inputs.noun}"
    if options.task not in (*inputs.tasks, *answers.tasks):
        advice = ", ".join([inputs.advice, *map(flag, answers.tasks)])
        raise ConfigError(f"the model of {run.run_dir} {what}: {advice}, or --test")
    for option in MODEL_OPTIONS if options.task in ("inputs", "text") else ():
        is_given = getattr(options, option) is not None
        if is_given and option not in (*inputs.options, *answers.options):
            task = flag(options.task)
            raise ConfigError(f"{flag(option)} has no effect with {task} where the model {what}")


def answer(run: FinishedRun, options: argparse.Namespace) -> Outcome:
    """Print one line per input; the exit code is 1 if an input could not be read."""
    inputs, answers = use_of(run)
    from deploy.export import Deployable

    model = Deployable(run.model, run.spec, answers.head())
    exit_code = 0
    rows: Rows = []
    subjects: dict[str, list[str]] = {}  # note -> the samples it concerns
    for sample in inputs.samples(run, options):
        if isinstance(sample, ConfigError):
            exit_code = print_error(sample)
            continue
        for text in sample.notes:
            subjects.setdefault(text, []).append(sample.subject)
        with torch.inference_mode():
            outputs = model(*sample.tensors)
        if not outputs.isfinite().all():
            raise ConfigError(
                f"{sample.name}: the model's outputs are not finite: its training diverged"
            )
        parts, sample_rows = answers.answer(sample, outputs, options)
        print(printable("  ".join([sample.shown, *parts] if sample.shown else parts)))
        rows += sample_rows
    for text, (first, *others) in subjects.items():
        note(f"{first}{f' and {len(others)} more' if others else ''}{text}")
    return exit_code, rows


def continue_text(run: FinishedRun, options: argparse.Namespace) -> Outcome:
    """Print the prompt and its continuation."""
    from models.generation import context_limit, generate

    try:
        prompt = run.spec.encode(options.prompt)
    except ConfigError as error:
        raise ConfigError(f"--prompt: {error}") from error
    tokens = torch.tensor([prompt], dtype=torch.long)
    context_length = context_limit(run.model, run.spec.context_length)
    if context_length is not None and tokens.shape[1] > context_length:
        note(
            f"the prompt has {tokens.shape[1]} tokens, more than the model's context of "
            f"{context_length}: only its last {max(context_length // 2, 1)} are used"
        )
    try:
        tokens = generate(
            run.model,
            tokens,
            max_new_tokens=200 if options.max_new_tokens is None else options.max_new_tokens,
            temperature=1.0 if options.temperature is None else options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            generator=torch.Generator().manual_seed(options.seed or 0),
            context_length=run.spec.context_length,
        )
    except ConfigError as error:
        name, _, problem = str(error).partition("=")
        raise ConfigError(f"{flag(name)} {problem}") from error
    text = run.spec.decode(tokens[0].tolist())
    print(printable(text))
    return 0, [{"prompt": options.prompt, "text": text}]


def draw_samples(run: FinishedRun, options: argparse.Namespace) -> Outcome:
    """Save a grid of generated images as PNG."""
    from data.pictures import save_grid

    generator = torch.Generator().manual_seed(options.seed or 0)
    file = options.output or run.run_dir / "samples.png"
    if file.suffix.lower() != ".png":
        raise ConfigError(f"--output {file} should be a file that ends in .png")
    save_grid(run.model.sample(options.num_samples, generator), file)  # type: ignore[operator]
    print(printable(str(file)))
    return 0, []


def test_again(run: FinishedRun, options: argparse.Namespace) -> Outcome:
    """Evaluate the test split again and print each metric with its recorded value."""
    rows: Rows = []
    for name, value in run.test().items():
        recorded = run.summary.get(name)
        if not isinstance(recorded, int | float):
            recorded = None
            remark = "not recorded"
        elif value == recorded:
            remark = "as recorded"
        else:
            remark = f"recorded: {recorded:.6g}, a difference of {abs(value - recorded):.2g}"
        print(f"{name}  {value:.6g}  ({remark})")
        rows.append({"metric": name, "value": value, "recorded": recorded})
    return 0, rows


def export(run: FinishedRun, options: argparse.Namespace) -> Outcome:
    """Export the model and print a table of size, latency and quality."""
    _, answers = use_of(run)
    from rich.console import Console

    from deploy.deploy import deploy, table

    folder = options.output or run.run_dir / "export"
    measurements = deploy(run, answers, options.export, options.quantize, folder)
    Console().print(table(measurements))
    if measurements[0].split != "test":
        note(f"checked on the {measurements[0].split} split: the data have no test split")
    for row in measurements:
        print(printable(str(row.file)))
    return 0, [{**vars(row), "file": str(row.file)} for row in measurements]


TASKS = {
    "inputs": answer,
    "text": answer,
    "prompt": continue_text,
    "num_samples": draw_samples,
    "test": test_again,
    "export": export,
    "quantize": export,
}


def write_csv(rows: Rows, file: Path) -> None:
    try:
        with file.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
            writer = csv.DictWriter(stream, list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {reason(error)}") from error


def note(text: str) -> None:
    print(printable(f"note: {text}"), file=sys.stderr)


def print_error(error: ConfigError | str) -> int:
    """Print an error, and return the exit code."""
    print(printable(f"error: {error}"), file=sys.stderr)
    return 1
