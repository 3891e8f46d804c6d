"""Text corpora: tokenizers, training windows, and evaluation that counts every token once."""

import json

import pytest
import torch

from core.errors import ConfigError
from data.loader import Loader
from data.spec_file import read_spec, spec_content
from data.text import corpus
from data.tokenizer import TOKENIZERS
from data.windows import IGNORE, Blocks, Lanes, RandomWindows

TEXT = "To be, or not to be – that is the question:\nWhether 'tis nobler…\n" * 40


def loader(splits, rank=0, world_size=1, accumulate_steps=1, batch_size=4):
    device = torch.device("cpu")
    return Loader(splits, device, 0, rank, world_size, accumulate_steps, batch_size, 3, 0)


def corpus_splits(tmp_path, tokenizer="char", lanes=None, fractions=(0.2, 0.1), text=TEXT):
    file = tmp_path / "hamlet.txt"
    file.write_text(text, encoding="utf-8")
    return corpus(str(file), str(tmp_path), 8, tokenizer, 300, *fractions, lanes)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokenizer_round_trips_and_is_restored_from_the_spec(kind, tmp_path):
    tokenizer = TOKENIZERS[kind].train(TEXT, TEXT, 300)
    tokens = tokenizer.encode(TEXT).long()
    assert tokens.max() < tokenizer.vocab_size
    assert tokenizer.decode(tokens.tolist()) == TEXT
    sizes = torch.tensor(tokenizer.token_bytes())
    assert sizes[tokens].sum() == len(TEXT.encode())
    spec = corpus_splits(tmp_path, kind).spec
    (tmp_path / "spec.json").write_text(json.dumps(spec_content(spec)))
    restored = read_spec(tmp_path / "spec.json")
    assert restored == spec
    assert restored.decode(restored.encode("not to be –")) == "not to be –"


def test_bpe_compresses_the_text():
    tokenizer = TOKENIZERS["bpe"].train(TEXT, TEXT, 280)
    assert tokenizer.vocab_size == 280
    assert len(tokenizer.encode(TEXT)) < 0.7 * len(TEXT.encode())


def test_unknown_characters_are_named_in_the_error(tmp_path):
    spec = corpus_splits(tmp_path).spec
    with pytest.raises(ConfigError, match="'Z' 'é'"):
        spec.encode("Zoé is")
    assert spec.encode("") == []


def test_splits_are_consecutive_and_complete(tmp_path):
    splits = corpus_splits(tmp_path)
    parts = [split.tensors[0] for split in (splits.train, splits.val, splits.test)]
    assert splits.spec.decode(torch.cat(parts).tolist()) == TEXT
    assert len(parts[1]) / len(TEXT) == pytest.approx(0.2, abs=0.01)


def test_cache_is_rebuilt_if_the_text_changes(tmp_path):
    first = corpus_splits(tmp_path).spec
    assert corpus_splits(tmp_path).spec == first
    assert corpus_splits(tmp_path, text=TEXT + "Z" * 30).spec.tokenizer_content != (
        first.tokenizer_content
    )


def test_random_windows_cover_the_text_evenly():
    split = RandomWindows(torch.arange(1001, dtype=torch.int32), 10)
    order = split.epoch_order(torch.Generator().manual_seed(0))
    assert len(order) == len(split) == 100
    assert torch.equal(order, split.epoch_order(torch.Generator().manual_seed(0)))
    assert order.min() >= 0
    assert order.max() <= 990
    starts = order.sort().values
    assert starts.diff().max() <= 20  # one start in each stretch of 9.9 tokens
    assert (order != starts).any()
    inputs, targets = split.gather(order)
    assert torch.equal(inputs[:, 0], order)
    assert torch.equal(targets, inputs + 1)
    _, targets = split.gather(torch.tensor([990]))
    assert targets[0, -1] == 1000  # the last window ends with the text


@pytest.mark.parametrize(
    "split",
    [RandomWindows(torch.arange(999), 10), Lanes(torch.arange(999), 10, 4)],
    ids=["windows", "lanes"],
)
def test_take_keeps_the_given_number_of_windows(split):
    subset = split.take(torch.arange(8))
    inputs, targets, *_ = subset.gather(subset.epoch_order(torch.Generator()))
    assert inputs.shape == (8, 10)
    assert targets.view(-1).shape == (80,)  # view needs a contiguous tensor
    assert targets.max() <= 80


def test_evaluation_windows_do_not_overlap():
    """The windows of a lane are read from its beginning."""
    inputs, targets = (
        RandomWindows(torch.arange(1001), 10).take_for_evaluation(torch.tensor([3, 99])).tensors
    )
    assert inputs[:, 0].tolist() == [30, 990]
    assert torch.equal(targets, inputs + 1)
    inputs, targets = Lanes(torch.arange(103), 8, 4).take_for_evaluation(torch.arange(6)).tensors
    assert inputs[:, 0].tolist() == [0, 25, 50, 75]
    assert torch.equal(targets, inputs + 1)
    assert inputs.shape == (4, 16)


def test_lanes_continue_across_updates():
    data = Lanes(torch.arange(103, dtype=torch.int32), length=8, lanes=4)
    order = data.epoch_order(torch.Generator())
    last_targets = None
    for indices in order.split(4):
        inputs, targets, lane, is_start = data.gather(indices)
        assert lane.tolist() == [0, 1, 2, 3]
        assert torch.equal(targets, inputs + 1)
        if last_targets is None:
            assert is_start.all()
            assert inputs[:, 0].tolist() == [0, 25, 50, 75]
        else:
            assert not is_start.any()
            assert torch.equal(inputs[:, 0], last_targets)
        last_targets = targets[:, -1]
    assert len(order) == 4 * 3


@pytest.mark.parametrize("num_tokens", [2, 8, 9, 10, 17, 100])
def test_blocks_count_every_target_once(num_tokens):
    split = Blocks(torch.arange(num_tokens, dtype=torch.int32), 8)
    _, targets = split.gather(torch.arange(len(split)))
    assert targets[targets != IGNORE].tolist() == list(range(1, num_tokens))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("lanes", [None, 4])
def test_distributed_evaluation_counts_every_target_once(world_size, lanes, tmp_path):
    splits = corpus_splits(tmp_path, lanes=lanes)
    counted = [
        targets[targets != IGNORE]
        for rank in range(world_size)
        for _, targets in loader(splits, rank, world_size, batch_size=6).evaluate("val")
    ]
    assert torch.equal(torch.cat(counted), splits.val.tensors[0][1:].long())


@pytest.fixture
def read(make_splits, tmp_path):
    """Return a function that writes bytes to a file (None: no file) and builds its splits."""

    def build(content, **settings):
        if content is not None:
            (tmp_path / "my.txt").write_bytes(content)
        path = str(tmp_path / "my.txt")
        return make_splits(
            "text_file", root=str(tmp_path), **{"path": path, "lanes": None} | settings
        )

    return build


def test_byte_order_marks_are_removed(read):
    spec = read("\ufeffsome text\r\n".encode() * 100).spec  # as after concatenating files
    assert spec.tokenizer.content == "".join(sorted(set("some text\n")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"caf\xe9", "not UTF-8 text: byte 3 is 0xe9"),
        (b"short", "4 training tokens, too few for a window of data.context_length=128"),
    ],
)
def test_bad_file_is_rejected(content, message, read):
    with pytest.raises(ConfigError, match=message):
        read(content)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokenizer": "word"}, "data.tokenizer=word should be one of char, byte, bpe"),
        ({"context_length": 0}, "data.context_length=0 should be greater than or equal to 1"),
        ({"val_fraction": 1.0}, "leave something to train on"),
        ({"bpe_vocab_size": 100, "tokenizer": "bpe"}, "data.bpe_vocab_size=100 should be"),
    ],
)
def test_bad_setting_is_rejected(settings, message, read):
    with pytest.raises(ConfigError, match=message):
        read(b"text " * 1000, **settings)
