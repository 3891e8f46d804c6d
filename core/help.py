"""``python train.py --help``: how to compose a run, and every option of every group."""

import textwrap

from core.composed import CONF

HEADER = """\
Train a model. Compose a run from groups (group=option), set anything with
key=value, sweep with -m and commas:

  python train.py model=lightcnn optim=sgd_cosine
  python train.py -m optim=sgd_cosine,adamw_warmup_cosine seed=0,1,2
  python train.py experiment=cifar10_customcnn
  python train.py trainer=ddp trainer.devices=4

--cfg job shows the composed config.
"""
FOOTER = """\
-m sweeps over comma-separated values; hydra/launcher=joblib, ray,
submitit_local or submitit_slurm runs the jobs in parallel. --hydra-help
lists Hydra's own flags."""
WIDTH = 80


def help_text() -> str:
    """The help text, wrapped at 80 columns. Files named ``_*`` are shared parts, not options."""
    lines = []
    for group in sorted(folder for folder in CONF.iterdir() if folder.is_dir()):
        options = sorted(file.stem for file in group.glob("[!_]*.yaml"))
        if options:
            text = f"{group.name}: {', '.join(options)}"
            lines.append(textwrap.fill(text, WIDTH, subsequent_indent="    "))
    return "\n".join([HEADER, *lines, "", FOOTER])
