"""Write run directories like those of real training runs, in milliseconds."""

import json
import random
from pathlib import Path
from typing import Any

import yaml

ACCURACIES = {"sgd_cosine": 0.95, "adam_constant": 0.93, "adamw_warmup_cosine": 0.9501}


def write_run(
    path: Path,
    optim: str = "sgd_cosine",
    seed: int = 0,
    lr: float = 0.1,
    accuracy: float | None = None,
    status: str = "completed",
    config: dict[str, Any] | None = None,
    **summary: Any,
) -> Path:
    """Write the directory of one run and return its path.

    Args:
        accuracy: final validation accuracy before noise; None: the default of ``optim``.
        config: sections to replace in the resolved config.
        summary: fields to replace in ``summary.json``.
    """
    seed_rng = random.Random(seed)  # the same for all candidates, so that seeds are paired
    noise = seed_rng.gauss(0, 0.004) + random.Random(f"{optim}{seed}").gauss(0, 0.001)
    final = (ACCURACIES.get(optim, 0.9) if accuracy is None else accuracy) + noise
    (path / ".hydra").mkdir(parents=True)
    choices = {"optim": optim, "optimizer": optim.split("_")[0], "hydra/launcher": "basic"}
    hydra = {"hydra": {"runtime": {"choices": choices}}}
    (path / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
    trainer = {"max_epochs": 3, "max_steps": None, "limit_train_steps": None, "target": None}
    config = config or {}
    resolved = {
        "seed": seed,
        "model": {"_target_": "models.lightcnn.LightCNN"},
        "data": {"_target_": "data.mnist5k.mnist5k"},
        "objective": {"_target_": "objectives.classification.Classification"},
        "optimizer": {"_target_": f"torch.optim.{optim}", "lr": lr},
        "wandb": {"project": "p", "entity": None, "group": None, "mode": "disabled"},
        **config,
        "trainer": {**trainer, **config.get("trainer", {})},
    }
    (path / "config.yaml").write_text(yaml.safe_dump(resolved))
    events = []
    for step in (10, 20, 30):
        events.append({"step": step, "seconds": step / 10, "train/loss": 3 / step, "optim/lr": lr})
        value = final * step / 30
        events.append({"step": step, "seconds": step / 10, "val/accuracy": value})
    events.append({"step": 30, "media": {"val/samples": {"file": "samples.png"}}})
    (path / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    content = {
        "status": status,
        "error": None,
        "seed": seed,
        "overrides": [f"optim={optim}", f"optimizer.lr={lr}", f"seed={seed}"],
        "monitor": "val/accuracy",
        "monitor_mode": "max",
        "best": {"value": final, "step": 30, "epoch": 3},
        "test/accuracy": final - 0.01,
        "steps": 30,
        "skipped_steps": 0,
        "planned_steps": 10 if status == "pruned" else 30,
        "horizon_steps": 30,
        "train_seconds": 3.0 + seed / 10,
        "step_ms": 100.0,
        "optimizer_step_ms": 0.5,
        "optimizer_state_bytes": 80,
        "model": "LightCNN",
        "num_parameters": 10,
        "peak_memory_bytes": 2**29,
        "precision": "fp32",
        "device": "cpu",
        "hardware": "a processor",
        "num_threads": 1,
        "world_size": 1,
        "data": "mnist5k",
        "synthetic_data": False,
        "num_samples": {"train": 3500, "val": 500, "test": 1000},
        "batch_size": 64,
        "data_order_hash": f"order{seed}",
        "initial_weights_hash": f"weights{seed}",
        "git_commit": "0123456789abcdef",
        "git_dirty": False,
        "versions": {"torch": "2.14.1"},
        **summary,
    }
    if status in ("diverged", "failed"):
        content |= {"best": None, "test/accuracy": None}
    (path / "summary.json").write_text(json.dumps(content))
    return path


def edit_summary(run_dir: Path, **changes: Any) -> None:
    """Replace fields of a run's ``summary.json``."""
    file = run_dir / "summary.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def figure_of(html: str, title: str) -> str:
    """Return the part of a page from a figure's caption to the end of its note."""
    start = html.index(f"{title}</figcaption>")
    return html[start : html.index("</figure>", start)]


def write_study(
    folder: Path,
    accuracies: dict[str, float],
    replicates: int = 4,
    data: str = "mnist5k",
    target: float | None = None,
    is_loss: bool = False,
    **summary: Any,
) -> Path:
    """Write a finished study with one seed per replicate and return its folder.

    Args:
        accuracies: by candidate, before noise.
        is_loss: monitor 1 - accuracy as a loss.
    """
    entries = []
    config = {"data": {"_target_": f"data.{data}.{data}"}, "trainer": {"target": target}}
    for name, accuracy in accuracies.items():
        for replicate in range(replicates):
            run_dir = folder / f"{name}-r{replicate}-repeat-000-seed{replicate}"
            write_run(run_dir, name, replicate, 0.1, accuracy, config=config, data=data, **summary)
            if is_loss:
                loss = 1 - json.loads((run_dir / "summary.json").read_text())["best"]["value"]
                values = {"best": {"value": loss}, "test/loss": loss, "test/accuracy": None}
                edit_summary(run_dir, monitor="val/loss", monitor_mode="min", **values)
            entry = {"run_dir": run_dir.name, "candidate": name, "replicate": replicate}
            entries.append(entry | {"phase": "repeat", "status": "completed", "params": {}})
    record = {
        "protocol": {
            "name": folder.name, "replicates": replicates, "trials": 5, "seeds_per_replicate": 1,
            "sampler": "sobol", "halving": None, "candidates": {name: {} for name in accuracies},
        },
        "finished": True,
        "monitor": "val/loss" if is_loss else "val/accuracy",
        "monitor_mode": "min" if is_loss else "max",
        "best": [],
        "runs": entries,
    }  # fmt: skip
    (folder / "study.json").write_text(json.dumps(record))
    return folder
