"""Result of a learning-rate range test: the rates at which training is fast and still stable.

``study=lr_range`` trains for a few hundred updates while the rate grows exponentially. The fall is
the first loss minus the lowest. The range begins where the loss has fallen by a fifth of it, and
ends where the loss has risen by a fifth of it for good, so that short spikes do not count.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from numpy.typing import ArrayLike, NDArray
from omegaconf import DictConfig

WINDOW = 0.08  # fraction of the points in a running mean
MARGIN = 0.2  # fraction of the fall that counts as a change
LEAST_POINTS = 20


@dataclass(frozen=True)
class Range:
    """Learning rates of fast and stable training, from ``low`` to ``high``.

    Attributes:
        low: the loss has begun to fall.
        steepest: the loss falls fastest per logarithm of the rate.
        high: the loss has risen for good or is no longer finite, or the ramp ends.
    """

    low: float
    steepest: float
    high: float


class LearningRateRange(Callback):
    """Hydra callback named in ``conf/study/lr_range.yaml``; called when the run has ended."""

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        folder = Path(config.hydra.runtime.output_dir)
        rates, losses = read(folder / "metrics.jsonl")
        found = find_range(rates, smooth(losses))
        if found is None:
            print("learning-rate range: the loss never fell steadily; nothing to recommend")
        else:
            bounds = {"optimizer.lr": {"low": found.low, "high": found.high, "log": True}}
            text = yaml.safe_dump(bounds, sort_keys=False)
            file = folder / "lr_range.yaml"
            file.write_text(f"# for the space of a study's candidate\n{text}")
            print(
                f"learning-rate range: {found.low:.2g} to {found.high:.2g}, steepest at "
                f"{found.steepest:.2g}\nbounds           {file}"
            )
        if len(rates):
            plot(rates, losses, found, folder / "lr_range.png")
            print(f"plot             {folder / 'lr_range.png'}")


def read(file: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read learning rates and finite training losses, in order."""
    columns = ["optim/lr", "train/loss"]
    if not file.exists():
        return np.empty(0), np.empty(0)
    events = pd.read_json(file, lines=True).reindex(columns=columns).dropna()
    rates, losses = events.to_numpy(dtype=float).T
    return rates, losses


def smooth(losses: ArrayLike) -> NDArray[np.float64]:
    """Centred running mean, which does not lag.

    Losses are clipped as far above the first as the lowest is below it, so that the mean does not
    spread an explosion to earlier points.
    """
    values = pd.Series(losses, dtype=float)
    if values.empty:
        return np.empty(0)
    cut = values.clip(upper=2 * values[0] - values.min())
    width = 2 * reach_of(len(values)) + 1
    return cut.rolling(width, center=True, min_periods=1).mean().to_numpy()


def reach_of(num_points: int) -> int:
    """Points on either side of the centre of a running mean."""
    return max(1, round(num_points * WINDOW / 2))


def find_range(rates: ArrayLike, losses: ArrayLike) -> Range | None:
    """Find the range in a smoothed curve; None if the loss hardly falls."""
    rates, losses = np.asarray(rates), np.asarray(losses)
    if len(losses) < LEAST_POINTS:
        return None
    lowest = int(losses.argmin())
    fall = losses[0] - losses[lowest]
    if fall < 0.05 * abs(losses[0]):
        return None
    low = np.flatnonzero(losses < losses[0] - MARGIN * fall)[0]
    high = np.flatnonzero(losses < losses[lowest] + MARGIN * fall)[-1]
    # the rate grows by the same factor at every point; across a window, since the loss is noisy
    reach = reach_of(len(losses))
    rises = losses[2 * reach :] - losses[: -2 * reach]
    steepest = reach + rises[: max(lowest - 2 * reach, 1)].argmin()
    return Range(*(float(f"{rates[at]:.2g}") for at in (low, steepest, high)))


def plot(
    rates: NDArray[np.float64], losses: NDArray[np.float64], found: Range | None, file: Path
) -> None:
    from matplotlib.figure import Figure

    smoothed = smooth(losses)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color="0.8", linewidth=1, label="loss")
    axes.plot(rates, smoothed, color="tab:blue", linewidth=2, label="smoothed")
    if found is not None:
        label = f"{found.low:.2g} to {found.high:.2g}"
        axes.axvspan(found.low, found.high, color="tab:green", alpha=0.2, label=label)
        axes.axvline(found.steepest, color="tab:green", linestyle=":", label="steepest")
    axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
    # a diverging end would flatten everything else
    axes.set_ylim(smoothed.min() * 0.9, smoothed[0] * 1.5)
    axes.legend()
    figure.savefig(file, dpi=120)
