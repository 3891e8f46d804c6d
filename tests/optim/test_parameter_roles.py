"""What weight decay leaves alone: biases, norms, tokens, positions, scales, a model's own list."""

import timm
import torch
from torch import nn
from torchvision.models import convnext_tiny, vit_b_32

from models.bert import bert
from models.vit import VisionTransformer
from optim.parameter_roles import undecayed


def undecayed_matrices(model: nn.Module) -> set[str]:
    """The names of those with two dimensions or more."""
    ids = undecayed(model)
    return {name for name, p in model.named_parameters() if id(p) in ids and p.ndim > 1}


def test_vision_transformers():
    own = VisionTransformer(1, 10, (8, 8), 4, width=8, depth=1, num_heads=2, dropout=0.0)
    assert undecayed_matrices(own) == {"positions"}
    theirs = timm.create_model("vit_tiny_patch16_224")
    assert undecayed_matrices(theirs) == {"pos_embed", "cls_token"}
    torchvisions = vit_b_32()
    assert undecayed_matrices(torchvisions) == {"class_token", "encoder.pos_embedding"}


def test_layer_scales():
    names = undecayed_matrices(convnext_tiny())
    assert names
    assert all(name.endswith("layer_scale") for name in names)


def test_position_embeddings_of_an_encoder(tiny_bert):
    model = bert(str(tiny_bert), None, 2, 16, "mean", 0.0)
    assert undecayed_matrices(model) == {"encoder.embeddings.position_embeddings.weight"}


def test_what_a_part_of_the_model_names():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(3, 3))
            self.layer = nn.Linear(3, 1)

        def no_weight_decay(self):
            return {"tabl*"}

    assert undecayed_matrices(nn.Sequential(Own())) == {"0.table"}


def test_a_weight_with_one_row_is_decayed():
    assert undecayed_matrices(nn.Sequential(nn.Linear(4, 1), nn.Conv2d(1, 1, 3))) == set()
