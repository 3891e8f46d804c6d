"""The command line of ``predict.py``: one task, and the options that belong to it."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from core.errors import ConfigError

# what can be asked of a run, and the options that belong to it
TASKS = {
    "inputs": ("top_k", "invert", "json", "csv"),
    "text": ("top_k", "json", "csv"),
    "prompt": ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "json", "csv"),
    "num_samples": ("seed", "output"),
    "test": ("json", "csv"),
    "export": ("quantize", "output", "json", "csv"),
    "quantize": ("output", "json", "csv"),
}
DEFAULTS = {
    "top_k": None,
    "top_p": None,
    "invert": None,
    "max_new_tokens": 200,
    "temperature": 1.0,
    "seed": 0,
    "export": None,
    "quantize": None,
    "output": None,
    "json": None,
    "csv": None,
}


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


def parse(arguments: Sequence[str] | None, description: str | None) -> argparse.Namespace:
    """The options, those not given with their defaults, and the ``task``.

    Raises:
        ConfigError: not one task, an option without effect on it, or a value out of range.
    """
    parser = Parser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("run_dir", type=Path)
    add("inputs", type=Path, nargs="*", help="image files and folders, or files of texts")
    add("--text", type=utf8, action="append", help="text to classify; may be given repeatedly")
    add("--prompt", type=utf8, help="text to continue")
    add("--max-new-tokens", type=int, metavar="N", help=f"default {DEFAULTS['max_new_tokens']}")
    add("--temperature", type=float, metavar="T", help="0: the likeliest token; default 1")
    add("--top-k", type=int, metavar="K", help="classes to show, or tokens to draw from")
    add("--top-p", type=float, metavar="P", help="draw from tokens of this probability together")
    add("--num-samples", type=int, metavar="N", help="images to generate")
    add("--seed", type=int, help="of generated text and images; default 0")
    add(
        "--invert",
        action=argparse.BooleanOptionalAction,
        help="swap light and dark; default: where the ground is the opposite of training's",
    )
    add("--test", action="store_true", help="measure the test split again")
    add("--export", choices=["onnx", "torch"])
    add("--quantize", choices=["int8"])
    add("--output", type=Path, help="PNG of --num-samples, folder of --export and --quantize")
    add("--json", type=Path, metavar="FILE", help="write the answers there, too")
    add("--csv", type=Path, metavar="FILE", help="the same as CSV")
    given = vars(parser.parse_args(arguments))
    if not given.get("inputs"):
        given.pop("inputs", None)
    tasks = [task for task in TASKS if task in given]
    if tasks == ["export", "quantize"]:
        tasks = ["export"]
    if len(tasks) != 1:
        parser.error(
            "give one of: files, --text, --prompt, --num-samples, --test, --export, --quantize"
        )
    for option in given:
        if option not in ("run_dir", tasks[0], *TASKS[tasks[0]]):
            parser.error(f"{spelled(option)} has no effect with {spelled(tasks[0])}")
    options = argparse.Namespace(**{**DEFAULTS, **given, "task": tasks[0]})
    if options.export == "torch" and options.quantize is not None:
        parser.error("--quantize makes an ONNX model: leave --export torch out")
    if not 0 <= options.seed < 2**64:
        parser.error(f"--seed {options.seed} should be at least 0 and below 2**64")
    if options.top_k is not None and options.top_k < 1:
        parser.error(f"--top-k {options.top_k} should be at least 1")
    return options


def spelled(option: str) -> str:
    return "files" if option == "inputs" else f"--{option.replace('_', '-')}"
