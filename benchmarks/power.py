"""Which differences a study detects, by replicates, candidates and split of the budget.

    python benchmarks/power.py

Simulates studies and judges them as the report does (`analysis.statistics.may_be_best`). One
candidate is the best, the others trail it by the same difference, in standard deviations over
seeds, and in points if that deviation is 0.3. Prints Markdown; takes some minutes on one core.
"""

import sys
from pathlib import Path

import numpy as np
from scipy.optimize import brentq

sys.path.insert(0, str(Path(__file__).parent.parent))

from analysis.statistics import may_be_best

NUM_STUDIES = 1000  # a power of 80 % has a standard error of 1.3 points
POINTS = 0.3  # standard deviation over seeds
TRIALS = 5
SPLITS = {  # runs a candidate -> replicates, trials, seeds per replicate
    24: [(1, 16, 8), (2, 8, 4), (3, 6, 2), (4, 4, 2), (4, 5, 1), (6, 3, 1), (8, 2, 1)],
    90: [(1, 82, 8), (3, 26, 4), (5, 16, 2), (9, 8, 2), (10, 8, 1), (15, 5, 1)],
}


def main() -> None:
    rng = np.random.default_rng(0)
    print(f"| replicates | seeds | runs, {TRIALS} trials | 2 candidates | 3 | 7 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for replicates in (3, 5, 8, 10, 15):
        least = [detected(rng.standard_normal((NUM_STUDIES, replicates, k))) for k in (2, 3, 7)]
        for seeds in (1, 2):
            # tuning has the same variance as seeds
            found = [difference * np.sqrt(1 + 1 / seeds) for difference in least]
            shown = " | ".join(f"{value:.1f} ({value * POINTS:.1f})" for value in found)
            print(f"| {replicates} | {seeds} | {replicates * (TRIALS + seeds)} | {shown} |")
    for runs, splits in SPLITS.items():
        print(f"\n| {runs} runs: R x T x S | lost by tuning | false | 1 | 2 | 4 | 8 |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for split in splits:
            values, tuned = tuning(rng, *split)
            false = np.mean([not may_be_best(study, 1).all() for study in values])
            powers = [f"{power(values, difference):.0%}" for difference in (1, 2, 4, 8)]
            lost = f"{tuned.mean():.1f} ± {tuned.std():.1f}"
            print(
                f"| {' x '.join(map(str, split))} | {lost} | {false:.0%} | {' | '.join(powers)} |"
            )


def detected(noise: np.ndarray) -> float:
    """The difference detected in 80 % of studies, in standard deviations of a replicate."""
    return brentq(lambda difference: power(noise, difference) - 0.8, 0.0, 50.0, xtol=0.01)


def power(values: np.ndarray, difference: float) -> float:
    """How often a candidate that trails the first by ``difference`` is called worse."""
    ahead = difference * (np.arange(values.shape[-1]) == 0)
    return 1 - float(np.mean([may_be_best(study + ahead, 1)[1:] for study in values]))


def tuning(rng: np.random.Generator, replicates: int, trials: int, seeds: int):
    """Values of three equal candidates, (studies, units, 3), and the loss of their tuned settings.

    The loss of a trial's setting is exponential with a mean of four standard deviations over seeds:
    most are far from the best and few near it. The trial with the best single run is selected.
    Units are replicates, or seeds if there is one replicate only.
    """
    size = (NUM_STUDIES, replicates, 3)
    losses = 4 * rng.exponential(size=(*size, trials))
    seen = losses + rng.standard_normal(losses.shape)
    tuned = np.take_along_axis(losses, seen.argmin(-1, keepdims=True), -1)
    runs = rng.standard_normal((*size, seeds)) - tuned
    return (runs[:, 0].swapaxes(1, 2) if replicates == 1 else runs.mean(-1)), tuned


if __name__ == "__main__":
    main()
