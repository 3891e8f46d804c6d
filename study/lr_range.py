"""The result of a learning-rate range test: where training is fast and still stable.

``study=lr_range`` trains a few hundred updates while the rate grows exponentially. Between the
first loss and the lowest lies the whole fall; the bounds are where a fifth of it is done, and where
the loss has risen by a fifth of it for good: spikes on a flat stretch pass.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

WINDOW = 0.08  # of the points are averaged into one
MARGIN = 0.2  # of the whole fall: what counts as a change
LEAST_POINTS = 20


@dataclass(frozen=True)
class Range:
    """Where training is fast and stable: between ``low`` and ``high``.

    Attributes:
        low: the loss has begun to fall.
        steepest: it falls fastest, over the logarithm of the rate.
        high: it stays risen from here on, or is no longer finite, or the ramp ends.
    """

    low: float
    steepest: float
    high: float


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
            bounds = {"optimizer.lr": {"low": found.low, "high": found.high, "log": True}}
            text = "# for the space of a study's candidate\n"
            text += yaml.safe_dump(bounds, sort_keys=False)
            (folder / "lr_range.yaml").write_text(text)
            print(
                f"learning-rate range: {found.low:.2g} to {found.high:.2g}, steepest at "
                f"{found.steepest:.2g}\n"
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
    """Centred running mean, which does not lag.

    What lies as far above the first loss as the lowest lies below is cut off, or an explosion
    would reach back.
    """
    if not losses:
        return []
    ceiling = 2 * losses[0] - min(losses)
    reach = reach_of(losses)
    cut = [min(loss, ceiling) for loss in losses]
    return [fmean(cut[max(0, i - reach) : i + reach + 1]) for i in range(len(cut))]


def reach_of(losses: list[float]) -> int:
    """Points on either side that a mean is taken over."""
    return max(1, round(len(losses) * WINDOW / 2))


def find_range(rates: list[float], losses: list[float]) -> Range | None:
    """The bounds in a smoothed curve; None if it hardly falls at all."""
    if len(losses) < LEAST_POINTS:
        return None
    lowest = min(range(len(losses)), key=losses.__getitem__)
    fall = losses[0] - losses[lowest]
    if fall < 0.05 * abs(losses[0]):
        return None
    low = next(i for i, loss in enumerate(losses) if loss < losses[0] - MARGIN * fall)
    high = max(i for i, loss in enumerate(losses) if loss < losses[lowest] + MARGIN * fall)
    # the rate grows by the same factor at every point; across a window, since the loss is noisy
    reach = reach_of(losses)
    inner = range(reach, max(lowest - reach, reach + 1))
    steepest = min(inner, key=lambda i: losses[i + reach] - losses[i - reach])
    return Range(rounded(rates[low]), rounded(rates[steepest]), rounded(rates[high]))


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
        axes.axvline(found.steepest, color="tab:green", linestyle=":", label="steepest")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    # a diverging end would flatten everything else
    axes.set_ylim(min(smoothed) * 0.9, smoothed[0] * 1.5)
    axes.legend()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
