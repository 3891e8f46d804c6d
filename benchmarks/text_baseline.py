"""Baseline for a fine-tuned text encoder: TF-IDF features and logistic regression.

    python benchmarks/text_baseline.py FOLDER

FOLDER holds train.csv, val.csv and test.csv with the columns text and label. The regularization,
the longest n-gram and the class weights are selected on the validation split.
"""

import argparse
import csv
from itertools import product
from pathlib import Path

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # inverse regularization: large values fit closely
LONGEST = (1, 2)  # words in an n-gram
CLASS_WEIGHTS = (None, "balanced")


def read(file: Path) -> tuple[list[str], list[str]]:
    """Texts and labels."""
    with file.open(newline="", encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    return [row["text"] for row in rows], [row["label"] for row in rows]


def baseline(strength: float, longest: int, weights: str | None) -> Pipeline:
    features = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, longest))
    classifier = LogisticRegression(C=strength, class_weight=weights, max_iter=1000)
    return make_pipeline(features, classifier)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    train, val, test = (read(folder / f"{name}.csv") for name in ("train", "val", "test"))
    best = 0.0
    for weights, strength, longest in product(CLASS_WEIGHTS, STRENGTHS, LONGEST):
        model = baseline(strength, longest, weights).fit(*train)
        scores = [model.score(*part) for part in (val, test)]
        is_best = scores[0] > best
        best = max(best, scores[0])
        print(
            f"{weights or 'plain'}, C {strength:g}, 1 to {longest} words: "
            f"val {scores[0]:.4f}, test {scores[1]:.4f}" + ("  best" if is_best else "")
        )


if __name__ == "__main__":
    main()
