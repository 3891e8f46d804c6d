"""What can be asked of a finished run, by its model's outputs and the kind of its data."""

import argparse

from core.errors import ConfigError
from deploy.answers import ANSWERS, Answers
from deploy.arguments import spelled
from deploy.finished_run import FinishedRun
from deploy.inputs import INPUTS, Inputs

# generators, by what their objective says that they return: their task, and what to tell a user
GENERATORS: dict[str | None, tuple[tuple[str, ...], str]] = {
    "token_logits": (("prompt",), "continues text: use --prompt"),
    "images": (("num_samples",), "generates images: use --num-samples"),
}
MODEL_OPTIONS = ("invert", "top_k", "output")  # options that some kinds of models heed


def use_of(run: FinishedRun) -> tuple[Inputs, Answers]:
    """What a model that answers something of every sample takes and says.

    Raises:
        ConfigError: nothing is known of its outputs.
    """
    inputs, answers = INPUTS.get(run.spec.kind), ANSWERS.get(run.outputs)
    if inputs is None or answers is None:
        raise ConfigError(
            f"the outputs of {run.config['objective']['_target_']} on data={run.spec.name} "
            "cannot be shown: only --test works for this run"
        )
    return inputs, answers(run.spec, run.config["objective"])


def check_task(run: FinishedRun, task: str) -> None:
    """Raises: ConfigError: the run's model is not made for it; with what can be asked of it."""
    if run.outputs in GENERATORS:
        tasks, advice = GENERATORS[run.outputs]
    else:
        inputs, answers = use_of(run)
        tasks = (*inputs.tasks, *answers.tasks)
        what = f"{answers.verb} {inputs.noun}: {inputs.advice}"
        advice = ", ".join([what, *map(spelled, answers.tasks)])
    if task not in tasks:
        raise ConfigError(f"the model of {run.run_dir} {advice}, or --test")


def checked_use(run: FinishedRun, options: argparse.Namespace) -> tuple[Inputs, Answers]:
    """The use of a run whose task is one of its inputs.

    Raises:
        ConfigError: it has another, or an option has no effect on it.
    """
    check_task(run, options.task)
    inputs, answers = use_of(run)
    for option in MODEL_OPTIONS if options.task in ("inputs", "text") else ():
        is_given = getattr(options, option) is not None
        if is_given and option not in (*inputs.options, *answers.options):
            what = f"{spelled(options.task)} where the model {answers.verb} {inputs.noun}"
            raise ConfigError(f"{spelled(option)} has no effect with {what}")
    return inputs, answers
