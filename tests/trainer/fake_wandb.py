"""Stands for the package ``wandb``: what it is sent goes to files in the folder ``$FAKE_WANDB``."""

import atexit
import json
import os
import time
from pathlib import Path

Settings = dict


def shown(*_, **__):
    return "shown"


Table = Image = Html = plot_table = shown


class Config(dict):
    def update(self, values, allow_val_change):
        assert allow_val_change
        super().update(values)


class Artifact:
    def __init__(self, name, type):
        self.name = name

    def add_file(self, path, name):
        assert Path(path).is_file()


class Run:
    def __init__(self, settings):
        self.id, self.dir = settings["id"], settings["dir"]
        self.url = f"https://server/{self.id}"
        self.file = Path(os.environ["FAKE_WANDB"], f"{self.id}_{os.getpid()}.jsonl")
        self.config, self.summary, self.num_rows, self.is_preempted = Config(), {}, 0, False
        self.write()
        atexit.register(self.finish, 0)  # as W&B does

    def write(self, **entry):
        entry["time"] = time.time()
        with self.file.open("a") as file:
            file.write(json.dumps({"id": self.id, **entry}) + "\n")

    def log(self, values, step):
        if self.num_rows == int(os.environ.get("FAKE_WANDB_DIES_AT", -1)):
            os.kill(os.getpid(), int(os.environ.get("FAKE_WANDB_DIES_BY", 0)))
            raise ConnectionError("the backend died")
        self.num_rows += 1
        self.write(step=step, values=values)

    def define_metric(self, *_, **__):
        pass

    save = log_artifact = define_metric

    def mark_preempting(self):
        self.is_preempted = True

    def finish(self, exit_code):
        atexit.unregister(self.finish)
        time.sleep(float(os.environ.get("FAKE_WANDB_SLOW", 0)) if exit_code else 0)
        self.write(exit_code=exit_code, is_preempted=self.is_preempted)


def init(**settings):
    if os.environ.get("FAKE_WANDB_HANGS"):
        time.sleep(60)
    return Run(settings)
