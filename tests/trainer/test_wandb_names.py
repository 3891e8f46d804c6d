"""Names, candidates and tags that distinguish runs on W&B's dashboard."""

import pytest

from trainer.loggers.wandb_names import candidate, run_name, run_tags


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
def test_candidate_of_a_run(composed, tmp_path, overrides, expected):
    assert candidate(composed(), tmp_path, overrides) == expected


def test_candidate_of_a_study_and_of_a_run_with_phases(composed, tmp_path):
    config = composed("wandb.candidate=adamw")
    assert candidate(config, tmp_path, ["optimizer=adamw", "optimizer.lr=0.1"]) == "adamw"
    assert candidate(composed("model=dcgan"), tmp_path, ["seed=1"]) == "DCGAN"


def test_run_name(composed, tmp_path):
    """The name of a sweep's job leaves out overrides that all jobs share."""
    overrides = ["seed=1", "wandb.mode=offline", "data.root=x"]
    assert run_name(composed(), tmp_path, overrides) == "seed=1"
    assert run_name(composed(), tmp_path, []) == tmp_path.name
    assert run_name(composed("wandb.candidate=adamw"), tmp_path, overrides) == tmp_path.name
    typed = "hydra: {overrides: {task: ['optimizer.lr=0.1,0.2', trainer.max_epochs=3]}}"
    (tmp_path / "multirun.yaml").write_text(typed)
    for function in (run_name, candidate):
        name = function(composed(), tmp_path / "0", ["optimizer.lr=0.1", "trainer.max_epochs=3"])
        assert name == "optimizer.lr=0.1"


def test_run_tags(composed):
    tags = run_tags(composed("wandb.tags=[2026, mine]"))
    assert tags == ["2026", "mine", "LightCNN", "mnist5k", "SGD"]
    assert run_tags(composed("model=dcgan"))[-1] == "Adam"  # of both phases
    assert "lamb" in run_tags(composed("optimizer=timm", "optimizer.name=lamb"))
