"""The result of a learning-rate range test: where training is fast and still stable.

``+study=lr_range`` trains a few hundred updates while the rate grows exponentially. What is read
off is where the smoothed loss falls fastest: the region below its minimum in which it falls at
least half as fast as at its steepest.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

SMOOTHING = 0.9  # of the running mean of the loss
LEAST_POINTS = 20


@dataclass(frozen=True)
class Range:
    """Where training is fast: between ``low`` and ``high``.

    Attributes:
        steepest: where the loss falls fastest, over the logarithm of the rate.
        lowest: where the loss is lowest; it rises from here on.
    """

    low: float
    high: float
    steepest: float
    lowest: float


class LearningRateRange(Callback):
    """Hydra's callback, named in ``conf/study/lr_range.yaml``: called when the run has ended."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        folder = Path(config.hydra.runtime.output_dir)
        rates, losses = read(folder / "metrics.jsonl")
        smoothed = smooth(losses)
        found = find_range(rates, smoothed)
        if found is None:
            print("learning-rate range: the loss never fell steadily; nothing to recommend")
        else:
            # a decaying schedule takes higher rates than a constant one: up to the lowest loss
            bounds = {"optimizer.lr": {"low": found.low, "high": found.lowest, "log": True}}
            text = "# for the space of a study's candidate\n"
            text += yaml.safe_dump(bounds, sort_keys=False)
            (folder / "lr_range.yaml").write_text(text)
            print(
                f"learning-rate range: {found.low:.2g} to {found.high:.2g}, steepest at "
                f"{found.steepest:.2g}; the loss rises from {found.lowest:.2g}\n"
                f"bounds           {folder / 'lr_range.yaml'}"
            )
        if rates:
            plot(rates, losses, smoothed, found, folder / "lr_range.png")
            print(f"plot             {folder / 'lr_range.png'}")


def read(file: Path) -> tuple[list[float], list[float]]:
    """Rates and finite training losses, in order."""
    rates, losses = [], []
    for line in file.read_text().splitlines() if file.exists() else ():
        event = json.loads(line)
        loss = event.get("train/loss")
        if loss is not None and math.isfinite(loss):
            rates.append(float(event["optim/lr"]))
            losses.append(float(loss))
    return rates, losses


def smooth(losses: list[float]) -> list[float]:
    """Running mean, corrected for its start at zero as Adam's moments are."""
    mean, smoothed = 0.0, []
    for count, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        smoothed.append(mean / (1 - SMOOTHING**count))
    return smoothed


def find_range(rates: list[float], losses: list[float]) -> Range | None:
    """The region of steepest stable descent; None if the smoothed loss hardly falls at all."""
    if len(losses) < LEAST_POINTS:
        return None
    lowest = min(range(len(losses)), key=losses.__getitem__)
    # slopes over the logarithm of the rate, each across a few points, since the loss is noisy
    reach = max(1, len(losses) // 50)
    slopes = {
        i: (losses[i + reach] - losses[i - reach])
        / (math.log(rates[i + reach]) - math.log(rates[i - reach]))
        for i in range(max(reach, LEAST_POINTS // 2), min(lowest, len(losses) - reach))
    }
    if not slopes:
        return None
    steepest = min(slopes, key=slopes.__getitem__)
    if slopes[steepest] >= 0 or losses[0] - losses[lowest] < 0.05 * abs(losses[0]):
        return None
    low = high = steepest
    while slopes.get(low - 1, 0.0) <= slopes[steepest] / 2:
        low -= 1
    while slopes.get(high + 1, 0.0) <= slopes[steepest] / 2:
        high += 1
    return Range(
        low=rounded(rates[low]),
        high=rounded(rates[high]),
        steepest=rounded(rates[steepest]),
        lowest=rounded(rates[lowest]),
    )


def rounded(rate: float) -> float:
    return float(f"{rate:.2g}")


def plot(
    rates: list[float], losses: list[float], smoothed: list[float], found: Range | None, file: Path
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(rates, losses, color="0.8", linewidth=1, label="loss")
    axes.plot(rates, smoothed, color="tab:blue", linewidth=2, label="smoothed")
    if found is not None:
        label = f"{found.low:.2g} to {found.high:.2g}"
        axes.axvspan(found.low, found.high, color="tab:green", alpha=0.2, label=label)
        axes.axvline(found.lowest, color="tab:red", linestyle=":", label="loss rises from here")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    # a diverging end would flatten everything else
    axes.set_ylim(min(smoothed) * 0.9, smoothed[0] * 1.5)
    axes.legend()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
