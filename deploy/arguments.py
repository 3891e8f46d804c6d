"""The command line of ``predict.py``: one task and its options."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from core.errors import ConfigError

# task -> the options that have an effect on it
OPTIONS = {
    "inputs": ("top_k", "invert", "output", "json", "csv"),
    "text": ("top_k", "json", "csv"),
    "prompt": ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "json", "csv"),
    "num_samples": ("seed", "output"),
    "test": ("json", "csv"),
    "export": ("quantize", "output", "json", "csv"),
    "quantize": ("output", "json", "csv"),
}


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see python predict.py --help")


def utf8(argument: str) -> str:
    """Reject text that is not UTF-8: Python decodes such bytes as lone surrogates."""
    try:
        argument.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError("the text is not UTF-8") from error
    return argument


def count(argument: str) -> int:
    if int(argument) < 1:
        raise argparse.ArgumentTypeError(f"{argument} should be at least 1")
    return int(argument)


def seed(argument: str) -> int:
    if not 0 <= int(argument) < 2**64:
        raise argparse.ArgumentTypeError(f"{argument} should be at least 0 and below 2**64")
    return int(argument)


def parse(arguments: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """Parse the command line into the ``task`` and the options, None for those not given.

    Raises:
        ConfigError: if not exactly one task is given, or an option has no effect or is invalid.
    """
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run_dir", type=Path)
    add("inputs", type=Path, nargs="*", help="image files and folders, files of texts, tables")
    add("--text", type=utf8, action="append", help="text to classify; may be given repeatedly")
    add("--prompt", type=utf8, help="text to continue")
    add("--max-new-tokens", type=int, metavar="N", help="default 200")
    add("--temperature", type=float, metavar="T", help="0: greedy decoding; default 1")
    add("--top-k", type=count, metavar="K", help="classes to show, or tokens to sample from")
    add("--top-p", type=float, metavar="P", help="nucleus sampling: cumulative probability")
    add("--num-samples", type=count, metavar="N", help="images to generate")
    add("--seed", type=seed, help="seed of generated text and images; default 0")
    add(
        "--invert",
        action=argparse.BooleanOptionalAction,
        help="invert images; default: if the background is the opposite of training's",
    )
    add("--test", action="store_true", default=None, help="evaluate the test split again")
    add("--export", choices=["onnx", "torch"])
    add("--quantize", choices=["int8"])
    add("--output", type=Path, help="PNG of --num-samples; folder of --export, masks")
    add("--json", type=Path, metavar="FILE", help="also write the answers to this file")
    add("--csv", type=Path, metavar="FILE", help="the same as CSV")
    options = parser.parse_args(arguments)
    given = [name for name, value in vars(options).items() if value not in (None, [])]
    tasks = [task for task in OPTIONS if task in given]
    if tasks == ["export", "quantize"]:
        tasks = ["export"]
    if len(tasks) != 1:
        parser.error(
            "give one of: files, --text, --prompt, --num-samples, --test, --export, --quantize"
        )
    (options.task,) = tasks
    for option in given:
        if option not in ("run_dir", options.task, *OPTIONS[options.task]):
            parser.error(f"{flag(option)} has no effect with {flag(options.task)}")
    if options.export == "torch" and options.quantize is not None:
        parser.error("--quantize writes an ONNX model: leave --export torch out")
    return options


def flag(option: str) -> str:
    return "files" if option == "inputs" else f"--{option.replace('_', '-')}"
