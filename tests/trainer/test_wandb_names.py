"""How W&B's dashboard tells runs apart, and what W&B may not touch."""

import pytest

from trainer.wandb_run import candidate, run_name


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["optim=sgd_cosine", "optimizer.lr=0.1", "seed=1", "wandb.mode=offline"],
            "sgd_cosine, optimizer.lr=0.1",
        ),
        (["experiment=mnist_lightcnn", "model=lightcnn"], "mnist_lightcnn, lightcnn"),
        (["optimizer.lr=0.1", "trainer=ddp", "debug=fast"], "optimizer.lr=0.1"),
        ([], "SGD"),
    ],
)
def test_candidate(composed, overrides, expected):
    assert candidate(composed(), overrides) == expected


def test_candidate_that_a_study_names(composed):
    config = composed("wandb.candidate=adamw")
    assert candidate(config, ["optimizer=adamw", "optimizer.lr=0.1"]) == "adamw"


def test_candidate_of_a_run_with_phases(composed):
    assert candidate(composed("model=dcgan"), ["seed=1"]) == "DCGAN"


def test_name():
    assert run_name(["seed=1", "wandb.mode=offline", "data.root=x"]) == "seed=1"


@pytest.mark.slow
def test_what_wandb_has_of_a_run(train):
    """The code under one name for all runs of a project. And no link to the run's config.yaml:
    at the end W&B writes one of its own among its files, through the link."""
    run_dir = train("debug=fast", "wandb.mode=offline")
    (files,) = (run_dir / "wandb").glob("offline-run-*/files")
    (sent,) = files.parent.glob("*.wandb")
    content = sent.read_bytes()
    assert b"training-code" in content
    assert b"models/lightcnn.py" in content
    assert b"conf/config.yaml" not in content
    assert (files / "metrics.jsonl").exists()
    assert not (files / "config.yaml").exists()
