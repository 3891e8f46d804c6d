"""Use a finished run; nothing but its directory is needed, and no GPU.

python predict.py <run dir> digit.png [more files or folders]     class and probability
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
from torch import Tensor

from core.errors import ConfigError, reason
from core.files import write_json
from deploy.arguments import parse, spelled
from deploy.finished_run import FinishedRun, newest_run, open_run

Rows = list[dict[str, Any]]
UNFINISHED = ["running", "interrupted", "failed", "diverged"]  # running: also if it was killed


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's exit code."""
    try:
        options = parse(arguments, __doc__)
        run = open_run(run_directory(options.run_dir))
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


def run_directory(given: Path) -> Path:
    if given != Path("latest") or given.is_dir():
        return given
    newest = newest_run()
    note(f"the latest run is {newest}")
    return newest


def classify(run: FinishedRun, options: argparse.Namespace) -> tuple[int, Rows]:
    """A line per image or text of the files; the exit code says whether all could be read."""
    if run.use == "texts":
        return classify_texts(run, options)
    check_use(run, "images")
    from deploy.export import Deployable
    from deploy.images import image_files, read_image

    model = Deployable(run.model, run.spec)
    exit_code = 0
    rows: Rows = []
    notes: dict[str, list[Path]] = {}
    for file in image_files(options.inputs):
        try:
            image, its_notes = read_image(file, run.spec, options.invert)
        except ConfigError as error:
            exit_code = complain(error)
            continue
        for text in its_notes:
            notes.setdefault(text, []).append(file)
        with torch.inference_mode():
            logits = model(image)
        rows += ranked(str(file), logits, run.spec.class_names, options.top_k)
    for text, files in notes.items():
        others = f" and {len(files) - 1} more" if len(files) > 1 else ""
        note(f"{files[0]}{others}: {text}")
    return exit_code, rows


def ranked(
    name: str,
    logits: Tensor,
    class_names: Sequence[str],
    top_k: int | None,
    show_name: bool = True,
) -> Rows:
    """Print the likeliest classes of one sample, ``(1, classes)``, and return them as rows.

    Raises:
        ConfigError: the model's outputs are not finite.
    """
    if not logits.isfinite().all():
        raise ConfigError(f"{name}: the model's outputs are not finite: its training diverged")
    best = logits.softmax(1).topk(min(top_k or 1, len(class_names)))
    rows = [
        {"input": name, "rank": rank, "class": class_names[index], "probability": probability}
        for rank, (index, probability) in enumerate(
            zip(best.indices[0].tolist(), best.values[0].tolist(), strict=True), 1
        )
    ]
    classes = [f"{row['class']}  {row['probability']:.2%}" for row in rows]
    print(printable("  ".join([name, *classes] if show_name else classes)))
    return rows


def classify_texts(run: FinishedRun, options: argparse.Namespace) -> tuple[int, Rows]:
    """A line per text of the command line, of a CSV file or of another file's lines."""
    check_use(run, "texts")
    if options.invert is not None:
        raise ConfigError("--invert has no effect on texts")
    from data.text_files import read_lines

    texts = {text: text for text in options.text or ()}  # by what each is called
    if not all(text.strip() for text in texts):
        raise ConfigError("--text is empty")
    data = run.config["data"]
    for file in options.inputs:
        lines = read_lines(file, data.get("text_column", "text"), data.get("delimiter"))
        texts |= {f"{file}:{line}": text for line, text in lines}
    rows: Rows = []
    for name, text in texts.items():
        if beyond := run.spec.tokens_beyond(text):
            whose = "the text" if name == text else name
            note(
                f"{whose} is longer than the {run.spec.max_length} tokens of data.max_length: "
                f"its last {beyond} are not read"
            )
        with torch.inference_mode():
            logits = run.model(*run.spec.encode([text]))
        show_name = len(texts) > 1 or name != text
        rows += ranked(name, logits, run.spec.class_names, options.top_k, show_name)
    return 0, rows


def continue_text(run: FinishedRun, options: argparse.Namespace) -> tuple[int, Rows]:
    """The prompt and what the model makes of it."""
    check_use(run, "text")
    from models.generation import generate

    try:
        prompt = run.spec.encode(options.prompt)
    except ConfigError as error:
        raise ConfigError(f"--prompt: {error}") from error
    tokens = torch.tensor([prompt], dtype=torch.long)
    context_length = getattr(run.model, "context_length", None)
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
        )
    except ConfigError as error:
        name, _, problem = str(error).partition("=")
        raise ConfigError(f"{spelled(name)} {problem}") from error
    text = run.spec.decode(tokens[0].tolist())
    print(printable(text))
    return 0, [{"prompt": options.prompt, "text": text}]


def draw_samples(run: FinishedRun, options: argparse.Namespace) -> tuple[int, Rows]:
    """A PNG with a grid of generated images."""
    check_use(run, "samples")
    from data.pictures import save_grid

    generator = torch.Generator().manual_seed(options.seed or 0)
    file = options.output or run.run_dir / "samples.png"
    if file.suffix.lower() != ".png":
        raise ConfigError(f"--output {file} should be a file that ends in .png")
    save_grid(run.model.sample(options.num_samples, generator), file)  # type: ignore[operator]
    print(file)
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
    check_use(run, "images")
    from rich.console import Console

    from deploy.deploy import deploy, table

    folder = options.output or run.run_dir / "export"
    measurements = deploy(run, options.export, options.quantize, folder)
    Console().print(table(measurements))
    if measurements[0].split != "test":
        note(f"checked on the {measurements[0].split} split: the data have no test split")
    for row in measurements:
        print(row.file)
    return 0, [{**vars(row), "file": str(row.file)} for row in measurements]


USES = {
    "inputs": classify,
    "text": classify_texts,
    "prompt": continue_text,
    "num_samples": draw_samples,
    "test": test_again,
    "export": export,
    "quantize": export,
}
ADVICE = {
    "images": "classifies images: give it image files, a folder, --export or --quantize",
    "samples": "generates images: use --num-samples",
    "text": "continues text: use --prompt",
    "texts": "classifies texts: use --text or give it text files",
}


def check_use(run: FinishedRun, wanted: str) -> None:
    """Refuse what the run's model is not made for."""
    if run.use is None:
        raise ConfigError(
            f"the outputs of {run.config['objective']['_target_']} on data={run.spec.name} "
            "cannot be shown: only --test works for this run"
        )
    if run.use != wanted:
        raise ConfigError(f"the model of {run.run_dir} {ADVICE[run.use]}, or --test")


def write_csv(rows: Rows, file: Path) -> None:
    try:
        with file.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
            writer = csv.DictWriter(stream, list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {reason(error)}") from error


def printable(text: str) -> str:
    """Without the lone surrogates by which Python spells file names that are no UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def note(text: str) -> None:
    print(printable(f"note: {text}"), file=sys.stderr)


def complain(error: ConfigError | str) -> int:
    print(printable(f"error: {error}"), file=sys.stderr)
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end quietly where the output goes to `head`
    sys.exit(main())
