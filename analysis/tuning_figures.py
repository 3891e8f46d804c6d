"""The figures of tuning: what searching for settings bought, and how much each setting matters."""

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter

from analysis.candidates import label
from analysis.comparison import Comparison
from analysis.figures import bad_edge
from analysis.looks import Palette
from analysis.plot import Figure, Plot
from analysis.tuning import Trial, expected_best_curves, swept_keys
from analysis.wording import metric_value, shown, slug, words


class TuningFigures:
    """The figures about the trials of each family."""

    def __init__(
        self, comparison: Comparison, trials: dict[str, list[Trial]], palette: Palette
    ) -> None:
        self.question = comparison.question
        self.metric = comparison.question.validation
        self.target = comparison.target
        self.tried = [trial for family in trials.values() for trial in family]
        self.trials = dict(sorted(trials.items(), key=lambda family: palette.order[family[0]]))

    def all(self) -> Iterator[Figure]:
        if curves := expected_best_curves(self.trials, self.question):
            yield self.expected_best(curves)
        for key in swept_keys(self.trials):
            if figure := self.sensitivity(key):
                yield figure

    def expected_best(self, curves: dict[str, list[float]]) -> Figure:
        def draw(plot: Plot) -> None:
            values = [value for curve in curves.values() for value in curve]
            plot.scale_x("trials", [], log=False)
            plot.axes.locator_params(axis="x", integer=True)
            plot.scale_y(self.metric, values)
            for family, curve in curves.items():
                plot.line(family, range(1, len(curve) + 1), curve)

        note = (
            "Of k draws from the trials that were run, however these were chosen (Dodge et al. "
            "2019). A trial that broke down counts as the worst value of all."
        )
        if any(trial.is_partial for trial in self.tried):
            note += (
                " A pruned trial counts with what it had reached by then, so no curve is too high."
            )
        title = f"expected best {words(self.metric)} after k trials"
        return Figure(slug(title), title, note, draw, tuple(curves))

    def sensitivity(self, key: str) -> Figure | None:
        """Validation by one swept number; None if no family tried two of its values."""
        better = self.question.key
        tried = {family: points(trials, key) for family, trials in self.trials.items()}
        tried = {family: known for family, known in tried.items() if num_values(known) > 1}
        every = [pair for known in tried.values() for pair in known]
        reached = [trial.value for _, trial in every if trial.value is not None]
        if not reached:
            return None
        best = {family: best_by_setting(known, better) for family, known in tried.items()}
        lines = {
            family: best[family]
            for family, known in tried.items()
            # a line through random points would show noise
            if num_values(known) < len(known) or len(known[0][1].setting) == 1
        }
        lines = {family: found for family, found in lines.items() if found}

        def draw(plot: Plot) -> None:
            larger = self.question.larger_is_better
            plot.scale_x(words(key), [at for at, _ in every])
            full = [v for of_family in best.values() for v in of_family.values()]
            edge = bad_edge(full or reached, larger)
            inside = [value for value in reached if better(value) >= better(edge)]
            plot.scale_y(self.metric, inside)
            plot.focus(reached, larger, min(inside, key=better))
            for family, known in tried.items():
                if family in lines:
                    plot.line(family, list(lines[family]), list(lines[family].values()))
                for at, trial in known:
                    tip = f"{family}, {label(trial.setting)}{', pruned' * trial.is_partial}"
                    if trial.value is None:
                        plot.cross(family, at, f"{tip}: broke down", at_top=not larger)
                    else:
                        value = metric_value(self.metric, trial.value)
                        plot.dot(family, at, trial.value, f"{tip}: {value}", trial.is_partial)

        title = f"{words(self.metric)} by {words(key)}"
        note = self.marks(any_line=bool(lines))
        if lines and self.target is not None:
            hits = "; ".join(f"{name} {self.reaching(found)}" for name, found in lines.items())
            target = metric_value(self.metric, self.target)
            note += f" {words(self.metric).capitalize()} of {target} is reached: {hits}."
        return Figure(slug(title), title, note, draw, tuple(tried))

    def marks(self, any_line: bool) -> str:
        """What the marks stand for that are there."""
        parts = ["A dot per trial", "an arrow where it lies outside"]
        parts += ["the line through the best"] if any_line else []
        if any(trial.is_partial for trial in self.tried):
            parts.append("hollow if it was pruned, at what it had reached by then")
        if any(trial.value is None for trial in self.tried):
            parts.append("a cross if it broke down")
        return f"{', '.join(parts)}."

    def reaching(self, best: dict[float, float]) -> str:
        """From where to where a swept number reaches the target, in words."""
        key, target = self.question.key, self.question.key(self.target)
        good = [x for x, value in best.items() if key(value) >= target]
        if not good:
            return "nowhere"
        if len(good) == 1:
            return f"at {shown(good[0], 3)}"
        return f"from {shown(min(good), 3)} to {shown(max(good), 3)}"


Points = list[tuple[float, Trial]]


def points(trials: Sequence[Trial], key: str) -> Points:
    """The trials that have a number for ``key``, in its order."""
    known = [(at, trial) for trial in trials if (at := trial.at(key)) is not None]
    return sorted(known, key=itemgetter(0))


def num_values(known: Points) -> int:
    return len({at for at, _ in known})


def best_by_setting(known: Points, key: Callable[[float], float]) -> dict[float, float]:
    """The best value at each value of a setting, of the trials that were run to the end."""
    best: dict[float, float] = {}
    for at, trial in known:
        if trial.value is not None and not trial.is_partial:
            best[at] = max(best.get(at, trial.value), trial.value, key=key)
    return best
