"""Time per update of each kind of network: the trainer, a bare loop, and one CUDA graph.

    python benchmarks/gpu.py [--device cpu] [--families lightcnn,vit] [--updates 200]

Measured as in ``update.py``, in the device's default precision: trainer and bare loop take turns,
then again with ``trainer.cuda_graph=true``. Images are not augmented; customcnn, speednet and
resnet50 use generated ones. The bare loop of lstm, dcgan and ddpm also computes the objective's
metrics. Prints Markdown: median and quartiles over the turns; peak memory of the trainer (on a CPU,
of the process); the number of kernels per update (on a CPU, of operators).
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from update import TURN, BareLoop, print_circumstances, quartiles, race

from core.errors import ConfigError
from trainer.distributed.device import choose_accelerator, device_name, synchronize

IMAGES = ("data=synthetic_images", "data.channels=3")
SMALL = (*IMAGES, "data.image_size=32", "data.num_train=8192")
LARGE = (*IMAGES, "data.image_size=224", "data.num_train=1024", "data.batch_size=256")
FAMILIES = {
    "lightcnn": ("model=lightcnn", "data.augment=[]"),
    "customcnn": ("model=customcnn", "optim=sgd_step", *SMALL),
    "speednet": ("model=speednet", *SMALL, "data.batch_size=1024"),
    "resnet50": ("model=resnet50", "model.stem=imagenet", *LARGE),
    "vit": ("model=vit", "data.augment=[]"),
    "transformer": ("model=transformer",),
    "lstm": ("experiment=docs_lstm", "trainer.clip_grad_norm=null"),
    "dcgan": ("experiment=mnist_dcgan",),
    "ddpm": ("experiment=mnist_ddpm", "trainer.ema_decay=null"),
}
COLUMNS = """family | trainer, ms | bare loop | trainer / bare | as a graph | graph / bare \
| batch | images or tokens per second | peak MiB | kernels | kernels, bare"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--updates", type=int, default=200, help="updates of each loop")
    options = parser.parse_args()
    kind = choose_accelerator(options.device)
    turns = max(2, options.updates // TURN)
    print_circumstances()
    print(f"{device_name(torch.device(kind))}, CUDA {torch.version.cuda}; per update, n = {turns}")
    print(f"\n| {COLUMNS} |\n|{' --- |' * 11}", flush=True)
    for name in options.families.split(","):
        settings = (*FAMILIES[name], f"trainer.accelerator={kind}")
        *times, bare = race(turns, *settings)
        facts = measured(bare, statistics.median(times[0]))
        try:
            graph, _, over_bare, bare = race(turns, *settings, "trainer.cuda_graph=true")
            graphed = [quartiles(graph), quartiles(over_bare)]
        except ConfigError:
            graphed = ["refused", ""]
        del bare  # and its trainer, so that they do not count in the next family's peak
        print("|", " | ".join([name, *map(quartiles, times), *graphed, *facts]), "|", flush=True)


def measured(bare: BareLoop, ms: float) -> list[str]:
    """Batch size, images or tokens per second, peak MiB, kernels of both loops."""
    update = [(inputs, *_)] = next(bare.data.train(0))
    count = len(inputs) if inputs.is_floating_point() else inputs.numel()
    kernels = map(num_kernels, (lambda: bare.trainer.train_step(update), bare.update))
    speed = f"{1000 * count / ms:,.0f}"
    return [str(bare.data.batch_size), speed, str(bare.peak_bytes >> 20), *kernels]


def num_kernels(work: Callable[[], None]) -> str:
    """Number of kernels, without copies; operators if there is no GPU."""
    kind = "CUDA" if torch.cuda.is_initialized() else "CPU"
    with profile(activities=[getattr(ProfilerActivity, kind)], acc_events=True) as profiler:
        work()
        synchronize(torch.device(kind.lower()))
    names = [e.name for e in profiler.events() if e.device_type == getattr(DeviceType, kind)]
    return str(sum(not name.startswith(("Memcpy", "Memset")) for name in names))


if __name__ == "__main__":
    main()
