"""Predict with a finished run: needs only its run directory, and no GPU.

python predict.py <run dir> digit.png [more files or folders]     class and probability, values, ...
python predict.py <run dir> patients.csv                          the same for every row of a table
python predict.py <run dir> --text "A dull film."                 the same for a text
python predict.py <run dir> reviews.csv                           the same for every text in a file
python predict.py <run dir> --prompt "The"                        text that continues the prompt
python predict.py <run dir> --num-samples 64                      a grid of generated images
python predict.py <run dir> --test                                the test metrics, recomputed
python predict.py <run dir> --export onnx                         a model file for other programs
python predict.py <run dir> --quantize int8                       a smaller model file

<run dir> may be "latest": the most recently started run under outputs/ and multirun/.
"""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from core.errors import ConfigError
from core.files import write_json
from deploy.arguments import parse
from deploy.finished_run import FinishedRun, newest_run, open_run
from deploy.tasks import TASKS, check_task, note, print_error, write_csv

UNFINISHED = ["running", "interrupted", "failed", "diverged"]  # a killed run stays "running"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    try:
        options = parse(arguments, __doc__)
        run = load_run(options.run_dir)
        options.run_dir = run.run_dir  # it may have been "latest"
        if (status := run.summary.get("status")) in UNFINISHED:
            note(f"the status of {run.run_dir} is {status}: using its best weights so far")
        if options.task != "test":
            check_task(run, options)
        exit_code, rows = TASKS[options.task](run, options)
        if options.json is not None:
            write_json(rows, options.json)
        if options.csv is not None:
            write_csv(rows, options.csv)
        return exit_code
    except ConfigError as error:
        return print_error(error)
    except OSError as error:
        if not error.filename:
            raise
        return print_error(f"{error.filename}: {error.strerror}")


def load_run(run_dir: str | Path) -> FinishedRun:
    """Load a run from Python: ``load_run("outputs/...").model`` has its best weights.

    Args:
        run_dir: a run directory, or ``latest`` for the most recently started run.

    Raises:
        ConfigError: if it is not a run directory, has no checkpoint, or has a damaged file.
    """
    run_dir = Path(run_dir)
    if run_dir == Path("latest") and not run_dir.is_dir():
        run_dir = newest_run()
        note(f"the latest run is {run_dir}")
    return open_run(run_dir)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # exit quietly when piped to `head`
    sys.exit(main())
