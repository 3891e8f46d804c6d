"""Use a finished run; nothing but its directory is needed, and no GPU.

python predict.py <run dir> digit.png [more files or folders]     class and probability, values, ...
python predict.py <run dir> patients.csv                          the same of every row of a table
python predict.py <run dir> --text "A dull film."                 the same of a text
python predict.py <run dir> reviews.csv                           the same of every text of a file
python predict.py <run dir> --prompt "The"                        text
python predict.py <run dir> --num-samples 64                      a grid of generated images
python predict.py <run dir> --test                                the test metrics again
python predict.py <run dir> --export onnx                         a file for other programs
python predict.py <run dir> --quantize int8                       a smaller one

<run dir> may be "latest": the run that began last below outputs/ and multirun/.
"""

import argparse
import csv
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from core.errors import ConfigError, reason
from core.files import write_json
from core.records import printable
from deploy.arguments import parse, spelled
from deploy.finished_run import FinishedRun, newest_run, open_run
from deploy.uses import check_task, checked_use

Rows = list[dict[str, Any]]
UNFINISHED = ["running", "interrupted", "failed", "diverged"]  # running: also if it was killed


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's exit code."""
    try:
        options = parse(arguments, __doc__)
        run = load_run(options.run_dir)
        options.run_dir = run.run_dir
        if (status := run.summary.get("status")) in UNFINISHED:
            note(f"the status of {run.run_dir} is {status}: its best weights up to there are used")
        exit_code, rows = USES[options.task](run, options)
        if options.json is not None:
            write_json(rows, options.json)
        if options.csv is not None:
            write_csv(rows, options.csv)
        return exit_code
    except ConfigError as error:
        return complain(error)
    except OSError as error:
        if not error.filename:
            raise
        return complain(f"{error.filename}: {error.strerror}")


def load_run(run_dir: str | Path) -> FinishedRun:
    """A run for use from Python: ``load_run("outputs/...").model`` has its best weights.

    Args:
        run_dir: or ``latest``, the run that began last below outputs/ and multirun/.

    Raises:
        ConfigError: it is no run directory, has no checkpoint, or one of its files is damaged.
    """
    return open_run(run_directory(Path(run_dir)))


def run_directory(given: Path) -> Path:
    if given != Path("latest") or given.is_dir():
        return given
    newest = newest_run()
    note(f"the latest run is {newest}")
    return newest


def answer(run: FinishedRun, options: argparse.Namespace) -> tuple[int, Rows]:
    """A line per sample of the files or texts; the exit code says whether all could be read."""
    use = checked_use(run, options)
    from deploy.export import Deployable

    model = Deployable(run.model, run.spec, use.answers.head())
    exit_code = 0
    rows: Rows = []
    notes: dict[str, list[str]] = {}  # -> of what
    for sample in use.inputs.samples(run, options):
        try:
            tensors, its_notes = sample.read()
        except ConfigError as error:
            exit_code = complain(error)
            continue
        for text in its_notes:
            notes.setdefault(text, []).append(sample.subject)
        with torch.inference_mode():
            outputs = model(*tensors)
        if not outputs.isfinite().all():
            raise ConfigError(
                f"{sample.name}: the model's outputs are not finite: its training diverged"
            )
        words, its_rows = use.answers.answer(sample, tensors[0], outputs, options)
        print(printable("  ".join([sample.shown, *words] if sample.shown else words)))
        rows += its_rows
    for text, subjects in notes.items():
        others = f" and {len(subjects) - 1} more" if len(subjects) > 1 else ""
        note(f"{subjects[0]}{others}{text}")
    return exit_code, rows


def continue_text(run: FinishedRun, options: argparse.Namespace) -> tuple[int, Rows]:
    """The prompt and what the model makes of it."""
    check_task(run, "prompt")
    from models.generation import context_limit, generate

    try:
        prompt = run.spec.encode(options.prompt)
    except ConfigError as error:
        raise ConfigError(f"--prompt: {error}") from error
    tokens = torch.tensor([prompt], dtype=torch.long)
    context_length = context_limit(run.model, run.spec.context_length)
    if context_length is not None and tokens.shape[1] > context_length:
        note(
            f"the prompt has {tokens.shape[1]} tokens and the model's context {context_length}: "
            f"the text goes on from the last {max(context_length // 2, 1)}"
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
        raise ConfigError(f"{spelled(name)} {problem}") from error
    text = run.spec.decode(tokens[0].tolist())
    print(printable(text))
    return 0, [{"prompt": options.prompt, "text": text}]


def draw_samples(run: FinishedRun, options: argparse.Namespace) -> tuple[int, Rows]:
    """A PNG with a grid of generated images."""
    check_task(run, "num_samples")
    from data.pictures import save_grid

    generator = torch.Generator().manual_seed(options.seed or 0)
    file = options.output or run.run_dir / "samples.png"
    if file.suffix.lower() != ".png":
        raise ConfigError(f"--output {file} should be a file that ends in .png")
    save_grid(run.model.sample(options.num_samples, generator), file)  # type: ignore[operator]
    print(printable(str(file)))
    return 0, []


def test_again(run: FinishedRun, options: argparse.Namespace) -> tuple[int, Rows]:
    """The test metrics beside the recorded ones."""
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


def export(run: FinishedRun, options: argparse.Namespace) -> tuple[int, Rows]:
    """Files for other programs, and a table of what they cost."""
    use = checked_use(run, options)
    from rich.console import Console

    from deploy.deploy import deploy, table

    folder = options.output or run.run_dir / "export"
    measurements = deploy(run, use.answers, options.export, options.quantize, folder)
    Console().print(table(measurements))
    if measurements[0].split != "test":
        note(f"checked on the {measurements[0].split} split: the data have no test split")
    for row in measurements:
        print(printable(str(row.file)))
    return 0, [{**vars(row), "file": str(row.file)} for row in measurements]


USES = {
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


def complain(error: ConfigError | str) -> int:
    print(printable(f"error: {error}"), file=sys.stderr)
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly where the output goes to `head`
    sys.exit(main())
