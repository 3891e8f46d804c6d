"""Use a finished run; nothing but its directory is needed, and no GPU.

python predict.py <run dir> digit.png [more files or a folder]    class and probability
python predict.py <run dir> --text "A dull film."                 the text's class and probability
python predict.py <run dir> --prompt "The"                        text
python predict.py <run dir> --num-samples 64                      a grid of generated images
python predict.py <run dir> --test                                the test metrics again
python predict.py <run dir> --export onnx                         a file for other programs
python predict.py <run dir> --quantize int8                       a smaller one
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch

from core.errors import ConfigError
from deploy.finished_run import FinishedRun, open_run


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's exit code."""
    try:
        options = parse(arguments)
        run = open_run(options.run_dir)
        if options.images:
            return classify(run, options)
        if options.text is not None:
            return classify_text(run, options)
        if options.prompt is not None:
            return continue_text(run, options)
        if options.num_samples is not None:
            return draw_samples(run, options)
        if options.test:
            return test_again(run)
        return export(run, options)
    except ConfigError as error:
        return complain(error)
    except OSError as error:  # --output cannot be written
        if not error.filename:
            raise
        return complain(f"{error.filename}: {error.strerror}")


def classify(run: FinishedRun, options: argparse.Namespace) -> int:
    """A line per image: file, class, probability; the exit code says whether all could be read."""
    check_use(run, "images")
    from deploy.export import Deployable
    from deploy.images import image_files, read_image

    model = Deployable(run.model, run.spec)
    exit_code = 0
    for file in image_files(options.images):
        try:
            image, notes = read_image(file, run.spec)
        except ConfigError as error:
            exit_code = complain(error)
            continue
        for note in notes:
            print(f"note: {file}: {note}", file=sys.stderr)
        with torch.inference_mode():
            probability, index = model(image).softmax(1).max(1)
        print(f"{file}  {run.spec.class_names[int(index)]}  {float(probability):.2%}")
    return exit_code


def classify_text(run: FinishedRun, options: argparse.Namespace) -> int:
    """The text's class and its probability."""
    check_use(run, "labels")
    if not options.text.strip():
        raise ConfigError("--text is empty")
    if beyond := run.spec.tokens_beyond(options.text):
        print(
            f"note: the text is longer than the {run.spec.max_length} tokens of data.max_length: "
            f"its last {beyond} are not read",
            file=sys.stderr,
        )
    with torch.inference_mode():
        probability, index = run.model(*run.spec.encode([options.text])).softmax(1).max(1)
    print(f"{run.spec.class_names[int(index)]}  {float(probability):.2%}")
    return 0


def continue_text(run: FinishedRun, options: argparse.Namespace) -> int:
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
        print(
            f"note: the prompt has {tokens.shape[1]} tokens and the model's context "
            f"{context_length}: the text goes on from the last {max(context_length // 2, 1)}",
            file=sys.stderr,
        )
    generator = torch.Generator().manual_seed(options.seed)
    tokens = generate(
        run.model,
        tokens,
        options.max_new_tokens,
        options.temperature,
        options.top_k,
        options.top_p,
        generator,
    )
    print(run.spec.decode(tokens[0].tolist()))
    return 0


def draw_samples(run: FinishedRun, options: argparse.Namespace) -> int:
    """A PNG with a grid of generated images."""
    check_use(run, "samples")
    if options.num_samples < 1:
        raise ConfigError(f"--num-samples {options.num_samples} should be at least 1")
    from data.pictures import save_grid

    generator = torch.Generator().manual_seed(options.seed)
    file = options.output or run.run_dir / "samples.png"
    if file.suffix.lower() != ".png":
        raise ConfigError(f"--output {file} should be a file that ends in .png")
    save_grid(run.model.sample(options.num_samples, generator), file)  # type: ignore[operator]
    print(file)
    return 0


def test_again(run: FinishedRun) -> int:
    """The test metrics beside the recorded ones."""
    for name, value in run.test().items():
        recorded = run.summary.get(name)
        if not isinstance(recorded, int | float):
            remark = "not recorded"
        elif value == recorded:
            remark = "as recorded"
        else:
            remark = f"recorded: {recorded:.6g}, a difference of {abs(value - recorded):.2g}"
        print(f"{name}  {value:.6g}  ({remark})")
    return 0


def export(run: FinishedRun, options: argparse.Namespace) -> int:
    """Files for other programs, and a table of what they cost."""
    check_use(run, "images")
    from rich.console import Console

    from deploy.deploy import deploy
    from deploy.measure import table

    folder = options.output or run.run_dir / "export"
    rows = deploy(run, options.export, options.quantize, folder)
    Console().print(table(rows))
    for row in rows:
        print(row.file)
    return 0


USES = {
    "images": "classifies images: give it image files, a folder, --export or --quantize",
    "samples": "generates images: use --num-samples",
    "text": "continues text: use --prompt",
    "labels": "classifies texts: use --text",
}


def check_use(run: FinishedRun, wanted: str) -> None:
    """Refuse what the run's model is not made for."""
    if hasattr(run.model, "sample"):
        use = "samples"
    else:
        use = {"image": "images", "text_classification": "labels"}.get(run.spec.kind, "text")
    if use != wanted:
        raise ConfigError(f"the model of {run.run_dir} {USES[use]}, or --test")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see python predict.py --help")


def utf8(argument: str) -> str:
    """Text from the command line, where bytes that are no UTF-8 come as lone surrogates."""
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError("the text is not UTF-8") from error
    return argument


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("images", type=Path, nargs="*", help="image files or folders")
    parser.add_argument("--text", type=utf8, help="text to classify")
    parser.add_argument("--prompt", type=utf8, help="text to continue")
    parser.add_argument("--max-new-tokens", type=int, default=200)
    parser.add_argument("--temperature", type=float, default=1.0, help="0: the likeliest token")
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--num-samples", type=int, help="images to generate")
    parser.add_argument("--seed", type=int, default=0, help="of generated text and images")
    parser.add_argument("--test", action="store_true", help="measure the test split again")
    parser.add_argument("--export", choices=["onnx", "torch"])
    parser.add_argument("--quantize", choices=["int8"])
    parser.add_argument("--output", type=Path, help="PNG of --num-samples, folder of --export")
    options = parser.parse_args(arguments)
    exports = options.export is not None or options.quantize is not None
    uses = [
        bool(options.images),
        options.text is not None,
        options.prompt is not None,
        options.num_samples is not None,
        options.test,
        exports,
    ]
    if sum(uses) != 1:
        parser.error("give one of: image files, --text, --prompt, --num-samples, --test, --export")
    if options.export == "torch" and options.quantize is not None:
        parser.error("--quantize makes an ONNX model: leave --export torch out")
    if not 0 <= options.seed < 2**64:
        parser.error(f"--seed {options.seed} should be at least 0 and below 2**64")
    return options


def complain(error: ConfigError | str) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
