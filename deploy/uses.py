"""What can be asked of a finished run, by its model's outputs and the kind of its data."""

import argparse
from dataclasses import dataclass

from core.errors import ConfigError
from deploy.answers import ANSWERS, Answers
from deploy.arguments import spelled
from deploy.finished_run import FinishedRun
from deploy.inputs import INPUTS, Inputs

# generators, by what their objective says that they return: their task, and what to tell a user
GENERATORS = {
    "token_logits": (("prompt",), "continues text: use --prompt"),
    "images": (("num_samples",), "generates images: use --num-samples"),
}


@dataclass(frozen=True)
class Use:
    """How a model that answers something of every sample is used."""

    inputs: Inputs
    answers: Answers


def use_of(run: FinishedRun) -> Use | None:
    """None: the model is a generator, or nothing is known of its outputs."""
    inputs, answers = INPUTS.get(run.spec.kind), ANSWERS.get(run.outputs)
    if inputs is None or answers is None:
        return None
    return Use(inputs, answers(run.spec, run.config["objective"]))


def tasks_and_advice(run: FinishedRun) -> tuple[tuple[str, ...], str]:
    """What can be asked beside ``test``, and how a user is told so.

    Raises:
        ConfigError: nothing.
    """
    if run.outputs in GENERATORS:
        return GENERATORS[run.outputs]
    use = use_of(run)
    if use is None:
        raise ConfigError(
            f"the outputs of {run.config['objective']['_target_']} on data={run.spec.name} "
            "cannot be shown: only --test works for this run"
        )
    tasks = (*use.inputs.tasks, *use.answers.tasks)
    further = "".join(f", {spelled(task)}" for task in use.answers.tasks)
    return tasks, f"{use.answers.verb} {use.inputs.noun}: {use.inputs.advice}{further}"


def check_task(run: FinishedRun, task: str) -> None:
    """Raises: ConfigError: the run's model is not made for it."""
    tasks, advice = tasks_and_advice(run)
    if task not in tasks:
        raise ConfigError(f"the model of {run.run_dir} {advice}, or --test")


def checked_use(run: FinishedRun, options: argparse.Namespace) -> Use:
    """The use of a run whose task is one of its inputs.

    Raises:
        ConfigError: it has another, or an option has no effect on it.
    """
    check_task(run, options.task)
    use = use_of(run)
    assert use is not None
    heeded = (*use.inputs.options, *use.answers.options)
    for option in ("invert", "top_k", "output"):
        is_given = getattr(options, option) is not None
        if is_given and option not in heeded and options.task in ("inputs", "text"):
            what = f"{spelled(options.task)} where the model {use.answers.verb} {use.inputs.noun}"
            raise ConfigError(f"{spelled(option)} has no effect with {what}")
    return use
