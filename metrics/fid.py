"""Fréchet distance between sets of images, in the feature space of a small classifier.

The usual FID (arXiv:1706.08500) uses an Inception network trained on photographs, which is a poor
fit for digits and must be downloaded. This one uses a LightCNN trained on the run's training split.
Distances are only comparable if they use the same network; ``fid_of_noise`` is then equal, too.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.collectives import broadcast
from core.errors import ConfigError
from core.instantiate import instantiate
from core.ranks import ranks_of_this_process
from core.rng import preserve_rng_state
from core.run_directory import read_config
from data.cache import cached_tensors
from data.draws import EPOCH_STREAM, seed_global_generators, seeded
from data.loader import Loader
from data.spec_file import read_spec
from models.build import fill_from_data
from models.lightcnn import LightCNN
from optim.schedules import Horizon, cosine

# training recipe of the feature extractor, the same as for model=lightcnn
EPOCHS, BATCH_SIZE, LR, MOMENTUM, WEIGHT_DECAY, SEED = 10, 64, 0.1, 0.9, 5e-4, 0
IMAGES_AT_ONCE = 500


class Extractor:
    """LightCNN's last feature map after global average pooling: 64 features per image.

    Not an ``nn.Module``, so that the objective does not train it, save it or set its mode.
    """

    def __init__(self, network: LightCNN, spec: Any, device: torch.device) -> None:
        self.network = network.to(device).eval().requires_grad_(False)
        self.mean = torch.tensor(spec.mean, device=device).view(1, -1, 1, 1)
        self.std = torch.tensor(spec.std, device=device).view(1, -1, 1, 1)

    def __call__(self, images: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` in [-1, 1] -> features ``(N, 64)``, always in fp32."""
        with torch.autocast(images.device.type, enabled=False):
            parts = images.float().split(IMAGES_AT_ONCE)
            features = [self.network.features(self.normalized(part)).mean((2, 3)) for part in parts]
        return torch.cat(features)

    def normalized(self, images: Tensor) -> Tensor:
        return ((images + 1) / 2 - self.mean) / self.std


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of the Gaussians fitted to features ``(N, F)`` and ``(M, F)``.

    ``|mean_a - mean_b|^2 + trace(A + B - 2 sqrt(A B))``. ``A B`` has the eigenvalues of the
    symmetric ``sqrt(A) B sqrt(A)``, which avoids the square root of a non-symmetric matrix.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    trace_of_root = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    means = (a.mean(0) - b.mean(0)).square().sum()
    return float(means + cov_a.trace() + cov_b.trace() - 2 * trace_of_root)


def load_extractor(run_dir: str, spec: Any, device: torch.device) -> Extractor:
    """Load the LightCNN of a finished run from its best checkpoint, without unpickling code.

    Raises:
        ConfigError: if there is no such run, its model is not a LightCNN, its images have another
            shape, or its checkpoint is missing or damaged.
    """
    where = f"objective.fid_extractor={run_dir}"
    trained_on = read_spec(Path(run_dir) / "spec.json")
    model = read_config(Path(run_dir) / "config.yaml").get("model")
    if not isinstance(model, dict) or model.get("_target_") != "models.lightcnn.LightCNN":
        raise ConfigError(f"{where} is not a run of a LightCNN")
    shapes = [f"{s.in_channels}x{s.image_size[0]}x{s.image_size[1]}" for s in (trained_on, spec)]
    if shapes[0] != shapes[1]:
        raise ConfigError(f"{where} was trained on {shapes[0]} images, {spec.name} has {shapes[1]}")
    network = instantiate(fill_from_data(model, trained_on), "model")
    checkpoints = [Path(run_dir) / "checkpoints" / name for name in ("best.pt", "last.pt")]
    file = next(filter(Path.is_file, checkpoints), None)
    if file is None:
        raise ConfigError(f"{where} has no checkpoint")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        network.load_state_dict(content["ema"] or content["model"])  # averaged weights if any
    except Exception as error:  # a damaged file may raise anything
        raise ConfigError(
            f"{where}: {file.name} is damaged, or not of the model in config.yaml"
        ) from error
    return Extractor(network, trained_on, device)


def default_extractor(data: Loader, cache: Path) -> Extractor:
    """A LightCNN trained on the training split of ``data``, or loaded from ``cache``.

    Rank 0 trains and broadcasts the weights. The run's global RNG states are preserved.
    """
    spec = data.spec
    with preserve_rng_state():
        seed_global_generators(SEED)
        network = LightCNN(spec.in_channels, spec.num_classes, spec.image_size)
    file = cache / f"fid_lightcnn_{spec.name}.pt"
    recipe = (EPOCHS, BATCH_SIZE, LR, MOMENTUM, WEIGHT_DECAY, SEED)
    cache_key = repr((str(network), spec.name, data.fingerprint, recipe))
    names = network.state_dict().keys()
    weights = None
    if ranks_of_this_process().is_main:
        with deterministic():
            weights = cached_tensors(file, cache_key, lambda: train(network, data, file))
    network.load_state_dict(dict(zip(names, broadcast(weights), strict=True)))
    return Extractor(network, spec, data.device)


@contextmanager
def deterministic() -> Iterator[None]:
    """Reproducible arithmetic: one thread, no TF32, deterministic cuDNN."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_num_threads(threads)


def train(network: LightCNN, data: Loader, file: Path) -> tuple[Tensor, ...]:
    """Train ``network`` without augmentation; returns its state dict's values, on the CPU."""
    count = len(data.splits["train"])
    print(
        f"FID: training a LightCNN on the {count:,} training samples of {data.spec.name} as "
        f"feature extractor, once; it is kept in {file}",
        flush=True,
    )
    start = time.perf_counter()
    network.to(data.device).train()
    batch_size = min(BATCH_SIZE, count)
    horizon = Horizon.of(EPOCHS, None, count // batch_size)
    optimizer = torch.optim.SGD(
        network.parameters(), LR, MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True
    )
    step = 0
    for epoch in range(EPOCHS):
        order = torch.randperm(count, generator=seeded(SEED, EPOCH_STREAM, epoch))
        batches = order[: horizon.steps_per_epoch * batch_size].split(batch_size)
        for images, labels in data.prepared("train", batches):
            optimizer.param_groups[0]["lr"] = cosine(step, LR, horizon)
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
            step += 1
    seconds = time.perf_counter() - start
    accuracy = ""
    if "val" in data.splits:
        accuracy = f", validation accuracy {val_accuracy(network.eval(), data):.1%}"
    print(f"FID: trained in {seconds:.0f} s{accuracy}", flush=True)
    return tuple(value.cpu() for value in network.state_dict().values())


@torch.no_grad()
def val_accuracy(network: nn.Module, data: Loader) -> float:
    batches = data.prepared("val", torch.arange(len(data.splits["val"])).split(IMAGES_AT_ONCE))
    correct = [network(images).argmax(1) == labels for images, labels in batches]
    return float(torch.cat(correct).float().mean())
