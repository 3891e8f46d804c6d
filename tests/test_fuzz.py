"""Random command lines end in one clear line, never in a traceback."""

import random

import pytest

from tests.conftest import QUIET

NAMES = """
    model optim optimizer scheduler data objective debug model.dropout model.num_classes
    model._target_ optimizer.lr optimizer.betas optimizer.momentum optimizer._target_
    scheduler.eta_min scheduler.warmup_fraction scheduler.warmup_steps scheduler._target_
    data.batch_size data.mean data.std data.augment data.num_workers data.root data._target_
    data.eval_batch_size objective.label_smoothing objective.mixup_alpha trainer.precision
    trainer.clip_grad_norm trainer.accumulate_steps trainer.ema_decay trainer.log_every_steps
    trainer.eval_every_steps trainer.on_nonfinite trainer.target trainer.accelerator
    trainer.early_stopping_patience trainer.checkpoint_every_seconds seed resume resume_changes
    monitor monitor_mode phases phases.train wandb.tags param_groups.decay_norms_and_biases
    hydra.run.dir hydra.job.num hydra.callbacks.sweep hydra.mode hydra.output_subdir nonsense
    a.b.c
"""
KEYS = NAMES.split()
SHOWN = r"""
    null -1 0 1 2.5 1e309 nan inf true abc [1,2 [1,2] [] {} {a:1} {_target_:os.system} ${seed}
    ${nowhere} ${oc.env:NOWHERE} ??? ' " é a=b a,b /proc/nonexistent /dev/null . os.system
    torch.nn.ReLU data.mnist5k.mnist5k optim.schedules.cosine sgd lightcnn cosine auto \ @ -
"""
VALUES = ["", "  ", *SHOWN.split()]
PREFIXES = ("", "", "", "", "+", "~", "++", "-", "--", "@", "/")


def nonsense(draw: random.Random) -> list[str]:
    words = []
    for _ in range(draw.randint(1, 3)):
        key = draw.choice(KEYS)
        if draw.random() < 0.2:
            position = draw.randrange(len(key))
            key = key[:position] + draw.choice("x._/ ") + key[position + 1 :]
        words.append(draw.choice(PREFIXES) + key + draw.choice(("=", "=", "=", "", " ", "==")))
        words[-1] += draw.choice(VALUES)
    return words


@pytest.mark.parametrize(
    "seed", [*range(40), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(100, 500))]
)
@pytest.mark.usefixtures("few_digits")
def test_random_overrides(seed, data_root, command_here):
    words = nonsense(random.Random(seed))
    few = ("debug=fast", "trainer.limit_train_steps=1", "trainer.limit_eval_steps=1")
    place = (f"data.root={data_root}", "hydra.run.dir=run")
    done = command_here("train.py", *QUIET, *place, *few, *words)
    assert done.returncode in (0, 1, 2), words
    assert "Traceback" not in done.stderr, words
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(errors) == (done.returncode != 0), (words, done.stderr)
