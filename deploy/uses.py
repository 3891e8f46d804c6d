"""Which tasks a finished run supports, by its model's outputs and kind of data."""

import argparse

from core.errors import ConfigError
from deploy.answers import ANSWERS, Answers
from deploy.arguments import spelled
from deploy.finished_run import FinishedRun
from deploy.inputs import INPUTS, Inputs

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


def check(run: FinishedRun, options: argparse.Namespace) -> None:
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
        advice = ", ".join([inputs.advice, *map(spelled, answers.tasks)])
        raise ConfigError(f"the model of {run.run_dir} {what}: {advice}, or --test")
    for option in MODEL_OPTIONS if options.task in ("inputs", "text") else ():
        is_given = getattr(options, option) is not None
        if is_given and option not in (*inputs.options, *answers.options):
            task = spelled(options.task)
            raise ConfigError(f"{spelled(option)} has no effect with {task} where the model {what}")
