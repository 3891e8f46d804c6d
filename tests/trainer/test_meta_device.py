"""Training on torch's meta device, where tensors have no values.

An operation that returns a value to Python, or whose output shape depends on values, raises there.
On a GPU it would block the host until all queued kernels have finished.
"""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset, default_collate

from data.sample_reader import SampleReader
from models.bert import TextClassifier
from objectives.classification import Classification
from objectives.generation import Generation
from tests.trainer.test_on_gpu import Copies
from trainer.trainer import Trainer

META = torch.device("meta")
SMALL_IMAGES = ("data.num_train=60", "data.num_val=20", "data.num_test=20")
SMALL_TEXT = ("model.width=16", "model.num_layers=1", "data.context_length=16")
PHOTOS = (
    "data=synthetic_images",
    *SMALL_IMAGES,
    "data.channels=3",
    "data.image_size=32",
    "data.augment=[{_target_: data.augment.RandomCrop, padding: 2}, {_target_: "
    "data.augment.AlternatingFlip}, {_target_: data.augment.HorizontalFlip}, {_target_: "
    "data.augment.Cutout, size: 4}]",
)
CASES = {
    "classification": ("model=lightcnn",),
    "photos": (*PHOTOS, "model=speednet", "model.widths=[8,8,8]", "trainer.sync_batchnorm=true"),
    "mixing": ("model=vit", "objective.mixup_alpha=0.4", "objective.cutmix_alpha=1.0",
               "objective.label_smoothing=0.1", "objective.class_weights=balanced"),
    "clipping_and_averaging": ("optim=adamw_warmup_cosine", "trainer.clip_grad_norm=1",
                               "trainer.clip_grad_value=1", "trainer.accumulate_steps=2",
                               "trainer.average=swa", "trainer.swa_start=0.1",
                               "trainer.swa_every_steps=1"),
    "language_modeling": ("model=transformer", *SMALL_TEXT),
    "truncated_backpropagation": ("model=lstm", *SMALL_TEXT, "optim=adamw_warmup_cosine"),
    "adversarial": ("model=dcgan", "model.width=8", "model.latent_dim=16"),
    "denoising": ("model=unet", "model.width=8", "model.multipliers=[1,2]"),
    "vae": ("model=vae", "model.width=4"),
    "segmentation": ("model=segmentation_unet", "model.widths=[4,8]", *SMALL_IMAGES,
                     "objective.class_weights=balanced"),
    "multilabel": ("experiment=several_digits", *SMALL_IMAGES),
    "regression": ("experiment=digit_angles",),
    "tables": ("experiment=diabetes_mlp",),
    "documents": ("model=bert", "data.max_length=16"),
}  # fmt: skip


class EnoughUpdates(Exception):
    """Ends training after the updates that a test needs."""


@pytest.fixture
def train_and_count_copies(train, few_digits, monkeypatch, tiny_bert, tmp_path):
    """Return a function that trains for two updates, and counts copies from the CPU to meta."""
    monkeypatch.setattr(Generation, "setup", lambda *ignored: None)  # trains its own extractor
    monkeypatch.setattr(Trainer, "summarize", lambda trainer: None)
    lines = [f"{('a very good film', 'dull')[i % 2]},{i % 2}" for i in range(60)]
    (tmp_path / "documents.csv").write_text("\n".join(["text,label", *lines]))
    copies = Copies()

    def train_on_meta(trainer):
        move_to_meta(trainer)
        trainer.progress.step = 1  # skip update 1, which is logged
        trainer.set_training(True)
        updates = trainer.updates()
        trainer.train_step(next(updates))  # also copies constants, which blocks
        with copies:
            for update in islice(updates, 2):
                assert {tensor.device for batch in update for tensor in batch} == {META}
                trainer.train_step(update)
        raise EnoughUpdates

    monkeypatch.setattr(Trainer, "train", train_on_meta)

    def run(*settings):
        if "model=bert" in settings:
            settings += (f"model.pretrained={tiny_bert}", f"data.path={tmp_path}/documents.csv")
        fixed = ("data.batch_size=20", "trainer.max_steps=50", "trainer.precision=bf16")
        with pytest.raises(EnoughUpdates):
            train(*settings, *fixed)
        return copies

    return run


def move_to_meta(trainer):
    """Move what a GPU would hold; in place, since phases and optimizers share the parameters."""
    objective, data = trainer.objective, trainer.data
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        objective.to(META)
        if trainer.average is not None:
            trainer.average.module.to(META)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    if isinstance(objective.model, TextClassifier):
        # transformers reads whether any token is padding (docs/scale/gpu.md)
        objective.model.encoder.register_forward_pre_hook(without_mask, with_kwargs=True)
    vars(objective).update({k: v.to(META) for k, v in vars(objective).items() if is_tensor(v)})
    data.device, data.splits["train"] = META, data.splits["train"].to(META)
    trainer.finite = replace(trainer.finite, reads_are_free=False)
    for phase in trainer.phases:
        for group in phase.optimizer.param_groups:
            group |= {"fused": False, "foreach": True} if group.get("fused") else {}


def without_mask(encoder, args, kwargs):
    return args, {**kwargs, "attention_mask": None}


def is_tensor(value):
    return isinstance(value, Tensor)


@pytest.mark.parametrize("case", CASES)
def test_updates_between_logging_steps_do_not_block(train_and_count_copies, case):
    copies = train_and_count_copies(*CASES[case])
    assert copies.total >= 2  # the sample indices of each update
    assert copies.blocking == 0


def test_reading_a_value_raises(train_and_count_copies, monkeypatch):
    """Without this, the test above would prove nothing."""

    def read_weight(objective, phase):
        return {"weight": float(next(objective.parameters()).sum())}

    monkeypatch.setattr(Classification, "after_backward", read_weight)
    with pytest.raises(RuntimeError, match="cannot be called on meta tensors"):
        train_and_count_copies("model=lightcnn")


def test_streamed_samples_are_pinned_and_copied_async():
    samples = TensorDataset(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))
    devices = (META, torch.device("cuda"))
    meta_reader, gpu_reader = (
        SampleReader(samples, 0, 0, device, collate=default_collate) for device in devices
    )
    with Copies() as copies:
        batches = [*meta_reader.read(torch.arange(4).split(2))]
    assert {tensor.device for batch in batches for tensor in batch} == {META}
    assert (copies.total, copies.blocking) == (4, 0)
    assert gpu_reader.loader.pin_memory
