"""Build the trainer and its phases from the run's config."""

from typing import Any

import torch.distributed as dist
from torch.optim import Optimizer

from core.collectives import local_main_process_first
from core.errors import ConfigError
from core.progress import Monitor
from core.ranks import Ranks
from core.schema import TrainerSettings
from data.build import build_data
from models.build import build_model, initialize_from_data, onednn_overflows
from objectives.base import Objective
from objectives.build import build_objective
from optim.build import build_optimizer, build_schedule
from optim.needs import Needs, rehearse
from optim.param_rules import freeze
from optim.schedules import Horizon
from optim.setting_schedule import SettingSchedule
from optim.uncompiled import leave_compiler_out
from trainer.averaging import check_average
from trainer.checkpoint.init_from import initialize
from trainer.checkpoint.resume import planned_horizon, resume
from trainer.checkpoint.start import Start
from trainer.cuda_graph import capturable, check_cuda_graph
from trainer.distributed.device import (
    choose_device,
    choose_precision,
    keep_recurrent_layers_out_of_autocast,
    prepare_process,
)
from trainer.distributed.parallel import distribute, for_strategy, wrap
from trainer.loggers.run_log import RunLog
from trainer.phase import Phase, PhaseCompute
from trainer.signals import Interruption
from trainer.trainer import Trainer


def build_trainer(
    config: dict[str, Any],
    monitor: Monitor,
    start: Start,
    run_log: RunLog,
    ranks: Ranks,
    interruption: Interruption,
) -> Trainer:
    """Build data, model, objective, phases and trainer, and restore the checkpoint if there is one.

    Raises:
        ConfigError: if a setting is wrong, or two settings are incompatible.
    """
    settings = TrainerSettings(**config["trainer"])
    device = choose_device(settings, ranks.local_rank)
    prepare_process(settings, config["seed"], ranks, device)
    with local_main_process_first(ranks):  # which downloads and prepares the data
        data = build_data(
            config["data"],
            device,
            config["seed"],
            ranks,
            settings.accumulate_steps,
            settings.eval_train_samples,
        )
    model = build_model(config["model"], data.spec, device, settings.channels_last)
    initialize_from_data(model, data)
    weights = config["init_from"] if start.content is None else None
    initial = initialize(model, weights, run_log, ranks, data.spec)
    objective = build_objective(config["objective"], model, data.spec)
    horizon = planned_horizon(settings, data, start)
    trainer = Trainer(
        settings=settings,
        objective=objective,
        phases=build_phases(config, objective, horizon, settings),
        data=data,
        horizon=horizon,
        monitor=monitor,
        run_log=run_log,
        ranks=ranks,
        interruption=interruption,
    )
    resume(trainer, start)
    run_log.write_header(data.spec, trainer.facts() | initial | start.facts, data.notes)
    return trainer


def build_phases(
    config: dict[str, Any], objective: Objective, horizon: Horizon, trainer: TrainerSettings
) -> list[Phase]:
    """Build the objective's phases, each with its own optimizer, schedule and clipping.

    Raises:
        ConfigError: if the config's ``phases`` do not match those of the objective.
    """
    modules = objective.phases()
    settings = phase_settings(config, list(modules))
    frozen_norms = freeze(objective.model, config["param_groups"]["rules"])
    grouping = config["param_groups"] | {"root": objective.model}
    if trainer.cuda_graph:
        check_cuda_graph(config, trainer, objective)
    distribute(objective, trainer)
    if trainer.strategy == "fsdp":
        check_average(trainer, against="trainer.strategy=fsdp")
    device = next(objective.parameters()).device
    keep_recurrent_layers_out_of_autocast(objective.model, device.type)
    if trainer.compile:
        if device.type == "cpu" and onednn_overflows(objective.model):  # in channels_last
            raise ConfigError(
                f"trainer.compile={trainer.compile} should be false: on a CPU, compiled strided "
                "1x1 convolutions of fewer than 16 channels may crash (an error of oneDNN's)"
            )
        # after the trial batch of two samples, whose shape would make the batch size symbolic
        mode = "default" if trainer.compile is True else trainer.compile
        objective.model.compile(mode=mode, dynamic=False)
    else:
        leave_compiler_out()
    phases = []
    for name, module in modules.items():
        phase_config, where = settings[name], f"phases.{name}." if config["phases"] else ""
        optimizer_config = for_strategy(phase_config["optimizer"], trainer)
        if trainer.cuda_graph:
            optimizer_config = capturable(optimizer_config, f"{where}optimizer")
        optimizer = build_optimizer(optimizer_config, module, grouping, f"{where}optimizer")
        needs = rehearse(optimizer_config, optimizer, f"{where}optimizer", module)
        check_needs(needs, optimizer, objective, trainer, f"{where}optimizer")
        phase = Phase(
            name=name,
            prefix=f"{name}/" if len(modules) > 1 else "",
            compute=wrap(PhaseCompute(objective, name), module, trainer),
            module=module,
            optimizer=optimizer,
            needs=needs,
            schedule=build_schedule(phase_config["scheduler"], horizon, f"{where}scheduler"),
            clip_grad_norm=phase_config["clip_grad_norm"],
            clip_grad_value=phase_config["clip_grad_value"],
            monitor_layers=trainer.monitor_layers,
            frozen_norms=frozen_norms,
            setting_schedules=[
                SettingSchedule(optimizer, name, build_schedule(node, horizon, f"{name}_schedule"))
                for name in ("momentum", "weight_decay")
                if (node := config[f"{name}_schedule"])
            ],
        )
        phase.try_schedules(horizon.total_steps)
        if phase.has_modes:
            itself = f"{type(phase.optimizer).__name__}, which averages the weights itself"
            check_average(trainer, against=itself)
        phases.append(phase)
    return phases


def phase_settings(config: dict[str, Any], names: list[str]) -> dict[str, dict[str, Any]]:
    """Settings of each phase. Without ``phases`` in the config, the top-level keys set them."""
    settings = config["phases"]
    if not settings:
        for part in ("optimizer", "scheduler"):
            if not config[part]:
                raise ConfigError(f"there is no {part}: choose one with {part}=NAME")
        top = {"optimizer": config["optimizer"], "scheduler": config["scheduler"]}
        top |= {key: config["trainer"][key] for key in ("clip_grad_norm", "clip_grad_value")}
        return dict.fromkeys(names, top)
    if set(settings) != set(names):
        raise ConfigError(
            f"phases has {', '.join(settings)}, but the objective has {', '.join(names)}"
        )
    return settings


def check_needs(
    needs: Needs, optimizer: Optimizer, objective: Objective, settings: TrainerSettings, where: str
) -> None:
    """Check that the run meets an optimizer's needs: double backward, closure, unsaved state.

    Raises:
        ConfigError: if a setting or the objective is incompatible with the optimizer.
    """
    if needs.unsaved and settings.checkpoint:
        raise ConfigError(
            f"{where}: a checkpoint cannot hold the state of {type(optimizer).__name__}, which is "
            "not just tensors and plain values: choose another optimizer, or "
            "trainer.checkpoint=false"
        )
    if not (needs.graph or needs.closure):
        return
    device = next(objective.parameters()).device
    carried = objective.state()
    has_hook = type(objective).after_backward is not Objective.after_backward
    unmet = {
        "an objective with a single phase": len(objective.phases()) > 1,
        "trainer.precision=fp32 or bf16: fp16 scales the loss": (
            choose_precision(settings.precision, device) == "fp16"
        ),
        "trainer.strategy=ddp": settings.strategy == "fsdp",
    }
    if needs.graph:
        unmet |= {
            "trainer.compile=false": bool(settings.compile),
            "one process: exchanged gradients have no graph": dist.is_initialized(),
        }
    else:
        unmet |= {
            "trainer.on_nonfinite=raise or stop": settings.on_nonfinite == "skip",
            f"an objective without state between updates ({', '.join(carried)})": bool(carried),
            "an objective without after_backward": has_hook,
            "no random numbers in its step": needs.draws,
        }
    for requirement, is_unmet in unmet.items():
        if is_unmet:
            action = "differentiates gradients" if needs.graph else "evaluates the loss again"
            name = type(optimizer).__name__
            raise ConfigError(f"{where}: {name} {action}, which needs {requirement}")
