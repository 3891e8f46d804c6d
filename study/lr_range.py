"""The result of a learning-rate range test: where training is fast and still stable.

``study=lr_range`` trains a few hundred updates while the rate grows exponentially. Between the
first loss and the lowest lies the whole fall; the bounds are where a fifth of it is done, and where
the loss has risen by a fifth of it for good: spikes on a flat stretch pass.
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
    """Rates and finite training losses, in order."""
    columns = ["optim/lr", "train/loss"]
    if not file.exists():
        return np.empty(0), np.empty(0)
    events = pd.read_json(file, lines=True).reindex(columns=columns).dropna()
    rates, losses = events.to_numpy(dtype=float).T
    return rates, losses


def smooth(losses: ArrayLike) -> NDArray[np.float64]:
    """Centred running mean, which does not lag.

    What lies as far above the first loss as the lowest lies below is cut off, or an explosion
    would reach back.
    """
    values = pd.Series(losses, dtype=float)
    if values.empty:
        return np.empty(0)
    cut = values.clip(upper=2 * values[0] - values.min())
    width = 2 * reach_of(len(values)) + 1
    return cut.rolling(width, center=True, min_periods=1).mean().to_numpy()


def reach_of(num_points: int) -> int:
    """Points on either side that a mean is taken over."""
    return max(1, round(num_points * WINDOW / 2))


def find_range(rates: ArrayLike, losses: ArrayLike) -> Range | None:
    """The bounds in a smoothed curve; None if it hardly falls at all."""
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
