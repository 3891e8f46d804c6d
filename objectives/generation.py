"""Base of the objectives that train image generators: value range, FID, sample grids."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from core.collectives import gather
from core.errors import ConfigError
from core.ranks import ranks_of_this_process
from data.draws import LATENT_STREAM, TRAINING_IMAGES_STREAM, UNIFORM_STREAM, seeded
from data.loader import Loader
from data.pictures import save_grid
from data.splits import Batch
from metrics.fid import Extractor, default_extractor, frechet_distance, load_extractor
from models.generative import SAMPLES_AT_ONCE, GenerativeModel
from objectives.base import Media, Objective, Picture, Sums, pixel_statistics

GRID = 64  # images in the sample grid
EVAL_SEED = 0  # the same noise at every evaluation of every run, for comparability


class Generation(Objective):
    """Base of the objectives whose model turns noise into images.

    Evaluation generates as many images as the split has and records the Fréchet distance between
    the two sets. For scale, it also records the distance of uniform noise and that of real training
    images, the best value possible with so few samples.

    Args:
        fid_extractor: run directory of a LightCNN; null: train one on the training split first.
        fid_cache: folder that caches the trained LightCNN for later runs.

    Raises:
        ConfigError: if the model does not generate images, or the data are not images.
    """

    keeps_samples = shows_samples = True
    metric_modes: ClassVar = {"fid": "min"}
    outputs = "images"

    def __init__(
        self, model: nn.Module, spec: Any, fid_extractor: str | None, fid_cache: str
    ) -> None:
        super().__init__(model)
        if not isinstance(model, GenerativeModel):
            raise ConfigError(
                f"model and objective do not fit: {type(model).__name__} does not generate images; "
                "use model=dcgan or model=unet"
            )
        if spec.kind != "image":
            raise ConfigError(f"objective and data={spec.name} do not fit: the data are not images")
        self.spec = spec
        self.device = next(model.parameters()).device
        # from the data's normalization to [-1, 1]: 2 * (x * std + mean) - 1
        mean, std = pixel_statistics(spec, self.device)
        self.scale, self.shift = 2 * std, 2 * mean - 1
        self.fid_cache = Path(fid_cache)
        self.extractor: Extractor | None = None
        if fid_extractor is not None:
            self.extractor = load_extractor(fid_extractor, spec, self.device)
        self.training_features: Tensor | None = None
        self.check_model()

    def check_model(self) -> None:
        """Hook: raise ConfigError unless the objective can train ``self.model``."""

    def in_range(self, images: Tensor) -> Tensor:
        """Rescale normalized images to [-1, 1], the range of the generators."""
        return torch.addcmul(self.shift, images, self.scale)

    def features(self, images: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` in [-1, 1] -> features for the Fréchet distance, on the CPU."""
        assert self.extractor is not None, "setup comes first"
        return self.extractor(images).cpu()

    def setup(self, data: Loader) -> None:
        if self.extractor is None:
            self.extractor = default_extractor(data, self.fid_cache)
        with torch.no_grad():
            self.training_features = self.features(self.in_range(training_images(data)))

    def evaluate(self, model: nn.Module, batch: Batch) -> tuple[Sums, dict[str, Tensor]]:
        return {}, {"features": self.features(self.in_range(batch[0]))}

    def conclude(
        self, model: nn.Module, samples: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        assert isinstance(model, GenerativeModel)
        assert self.training_features is not None
        real = samples["features"]
        noise = model.noise(len(real), seeded(EVAL_SEED, LATENT_STREAM))
        generated, shown = self.generate(model, noise)
        shape = self.spec.example(len(real)).shape
        uniform = 2 * torch.rand(shape, generator=seeded(EVAL_SEED, UNIFORM_STREAM)) - 1
        sets = {
            "fid": generated,
            "fid_of_noise": self.features(uniform.to(self.device)),
            "fid_of_training_images": self.training_features[: len(real)],
        }
        metrics = {name: frechet_distance(features, real) for name, features in sets.items()}
        return metrics, {"generated": shown}

    def generate(self, model: GenerativeModel, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Generate images from ``noise``; returns their features and the first images, on the CPU.

        The images are split between the processes; the result does not depend on their number.
        """
        ranks = ranks_of_this_process()
        low, high = (len(noise) * (ranks.rank + i) // ranks.world_size for i in (0, 1))
        features, images = [], []
        for part in noise[low:high].split(SAMPLES_AT_ONCE):
            generated = model.generate(part.to(self.device)).float()
            features.append(self.features(generated))
            images.append(generated[:GRID].cpu())
        parts = gather((torch.cat(features), torch.cat(images)[:GRID]))
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])[:GRID]

    def media(self, samples: dict[str, Tensor], split: Any, folder: Path) -> Media:
        file = folder / "samples.png"
        save_grid((samples["generated"] + 1) / 2, file)
        return {"samples": Picture(file, "of the same noise at every evaluation")}


def training_images(data: Loader) -> Tensor:
    """Random training images without augmentation, as many as the largest evaluation split."""
    split = data.splits["train"]
    count = max(len(data.splits[name]) for name in data.splits if name != "train")
    order = torch.randperm(len(split), generator=seeded(EVAL_SEED, TRAINING_IMAGES_STREAM))[:count]
    batches = data.prepared("train", order.split(data.eval_batch_size))
    return torch.cat([batch[0] for batch in batches])
