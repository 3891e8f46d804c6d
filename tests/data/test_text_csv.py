"""Labelled documents from CSV files: splits, padding, truncation, notes and one-line errors."""

from pathlib import Path

import pytest
import torch

from core.errors import ConfigError
from core.files import write_json
from data.loader import Loader
from data.spec_file import read_spec, spec_content

ROWS = [("a good film", "pos"), ("a very very bad film", "neg"), ("dull", "neg"), ("good", "pos")]
ALL_TRAINING = {"val_fraction": 0, "test_fraction": 0}


def write(file: Path, rows=ROWS, header="text,label") -> Path:
    file.write_text("\n".join([header, *(f'"{text}",{label}' for text, label in rows)]) + "\n")
    return file


@pytest.fixture
def read(make_splits, tiny_bert):
    """Return a function that builds the splits of a CSV file: ``read(file, max_length=8)``."""
    settings = {"root": "", "tokenizer": str(tiny_bert), "max_length": 16}
    return lambda file, **changes: make_splits("text_csv", path=str(file), **settings | changes)


def test_columns_become_tokens_and_labels(read, tmp_path):
    file = write(tmp_path / "reviews.csv", header="review,stars")
    splits = read(file, text_column="review", label_column="stars", **ALL_TRAINING)
    assert splits.val is None
    assert splits.test is None
    assert splits.spec.class_names == ("neg", "pos")
    tokens, mask, labels = splits.train.gather(torch.arange(4))
    assert tokens[0].tolist() == [2, 4, 6, 5, 3, 0, 0]  # [CLS] a good film [SEP] and padding
    assert mask.sum(1).tolist() == [5, 7, 3, 3]
    assert labels.tolist() == [1, 0, 0, 1]


def test_batch_is_padded_to_its_longest_document(read, tmp_path):
    splits = read(write(tmp_path / "reviews.csv"), **ALL_TRAINING)
    train = splits.train
    assert train.gather(torch.tensor([2, 3]))[0].tolist() == [[2, 9, 3], [2, 6, 3]]
    assert train.gather(torch.tensor([1]))[0].shape == (1, 7)
    subset = train.take(torch.tensor([3, 0]))
    assert subset.gather(torch.tensor([1, 0]))[2].tolist() == [1, 1]
    assert subset.text(0) == [2, 6, 3]
    loader = Loader(splits, torch.device("cpu"), 0, 0, 1, 1, 1, 1, 0)
    widths = [tokens.shape[1] for ((tokens, _, _),) in loader.train(0)]
    assert sorted(widths) == [3, 3, 5, 7]


def test_truncated_documents_keep_their_last_special_token(read, tmp_path):
    rows = [("good " * 50, "pos"), ("bad", "neg")]
    file = write(tmp_path / "x.csv", rows)
    splits = read(file, max_length=6, **ALL_TRAINING)
    assert splits.train.text(0) == [2, 6, 6, 6, 6, 3]
    assert splits.notes == ["1 of 2 train documents are truncated to data.max_length=6 tokens"]


def test_probable_mistakes_are_reported(read, tmp_path):
    """Notes name documents in two splits, and labels that differ only in notation."""
    train, test = (tmp_path / f"{name}.csv" for name in ("train", "test"))
    write(train, [*ROWS, ("bad", "Neg"), ("very good", "1"), ("very dull", "1.0")])
    write(test, [*ROWS[:2], ("a dull film", "neg")])
    assert read(train, **ALL_TRAINING).notes == [
        "2 of 3 test documents are also in training",
        "the labels 1 and 1.0 count as different classes",
        "the labels Neg and neg count as different classes",
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_detected_and_reported(read, tmp_path, delimiter):
    file = tmp_path / "x.csv"
    rows = ["id,text,label", '1,"a good; film | or\t, not",pos', "2,bad,neg"]
    cells = [row.split(",", 2) if row[0] != "1" else [row[0], row[2:-4], "pos"] for row in rows]
    file.write_text("\n".join(delimiter.join(row) for row in cells) + "\n")
    splits = read(file, **ALL_TRAINING)
    assert splits.spec.class_names == ("neg", "pos")
    name = {"\t": "tab"}.get(delimiter, delimiter)
    note = f"data.path={file}: data.delimiter={name}, detected from the header"
    assert splits.notes == ([] if delimiter == "," else [note])
    explicit = read(file, delimiter=name, **ALL_TRAINING)
    assert explicit.notes == []
    assert torch.equal(explicit.train.all_tokens, splits.train.all_tokens)


def test_splits_are_disjoint_deterministic_and_stratified(read, tmp_path):
    numbers = [f"{i:06b}".replace("0", "bad ").replace("1", "good ") for i in range(60)]
    rows = [(number, "pos" if i % 3 else "neg") for i, number in enumerate(numbers)]
    file = write(tmp_path / "reviews.csv", rows)
    splits, second = read(file), read(file)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [48, 6, 6]
    assert splits.val.tensors[2].tolist().count(0) == 2  # a third, as in the file
    assert torch.equal(splits.test.all_tokens, second.test.all_tokens)
    parts = (splits.train, splits.val, splits.test)
    assert len({tuple(part.text(i)) for part in parts for i in range(len(part))}) == 60


def test_test_csv_next_to_train_csv_is_the_test_split(read, tmp_path):
    file = write(tmp_path / "train.csv")
    write(tmp_path / "test.csv", ROWS[:2])
    splits = read(file, val_fraction=0.25)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (3, 1, 2)
    other = write(tmp_path / "other.csv", ROWS[:3])
    assert len(read(file, test_path=str(other)).test) == 3


def test_spec_round_trips_and_encodes(read, tmp_path):
    spec = read(write(tmp_path / "x.csv"), **ALL_TRAINING).spec
    write_json(spec_content(spec), tmp_path / "spec.json")
    restored = read_spec(tmp_path / "spec.json")
    assert restored == spec
    tokens, mask = restored.encode(["a good film", "dull"])
    assert tokens.tolist() == [[2, 4, 6, 5, 3], [2, 9, 3, 0, 0]]
    assert mask.tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert tokens.dtype == torch.int64
    assert restored.decode(tokens[0].tolist()) == "a good film"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"text,label\n", "has a header and no rows"),
        (b"review,label\na,b\n", r"no column text \(data.text_column\), but review, label"),
        (b"text,labels\na,b\n", r"no column label \(data.label_column\).* did you mean labels\?"),
        (b"text,label\na,pos\nb,\n", "line 3: the column label is empty"),
        (b"text,label\na,pos\nb\n", "line 3: 1 cells, but the header has 2: a cell is missing"),
        (b"text,label\na,pos\nwell, b,neg\n", "line 3: 3 cells, .* contains , .* needs quotes"),
        (b"text;label\na;pos\nwell; b;neg\n", "line 3: 3 cells, .* contains ; .* needs quotes"),
        (b"text,label,text\na,pos,b\n", "line 1: 2 columns called text"),
        (b"a;b\n1;2\n", "no column text .*, but a, b, with data.delimiter=;"),
        (b"a\tb\n1\t2\n", "no column text .*, but a, b, with data.delimiter=tab"),
        (
            b'text,label\na,pos\nthe "best" of "all,neg\n"b" c,pos\n',
            "line 4 is not valid CSV: ',' expec",
        ),
        (b"text,label\na,pos\n  ,neg\n", "line 3: the column text is empty"),
        (b"text,label\na,pos\nb,pos\n", "all examples have the label pos"),
        (b"text,label\n\xff\xfe,pos\n", "x.csv is not UTF-8 text: byte 11 is 0xff"),
        (b'text,label\n"a,pos\n', "line 2 is not valid CSV: unexpected end of data"),
    ],
)
def test_bad_file_raises_one_line_error(content, message, read, tmp_path):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path / "x.csv", **ALL_TRAINING)
    assert "\n" not in str(caught.value)


def test_byte_order_marks_and_quoted_line_breaks_are_accepted(read, tmp_path):
    file = tmp_path / "x.csv"
    mark = b"\xef\xbb\xbf"  # at the start, and where another file was appended
    file.write_bytes(mark + b'text,label\r\n"good\r\nfilm",pos\r\n' + mark + b"bad,neg\r\n")
    train = read(file, **ALL_TRAINING).train
    assert train.text(0) == [2, 6, 5, 3]
    assert train.text(1) == [2, 7, 3]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("path", "missing.csv", "data.path=missing.csv: No such file or directory"),
        ("path", ".", r"data.path=\.: Is a directory"),
        ("val_path", "missing.csv", "data.val_path=missing.csv: No such file or directory"),
        ("tokenizer", None, "data.tokenizer=None should be a folder"),
        ("tokenizer", "./missing", "data.tokenizer=./missing: there is no such folder"),
        ("tokenizer", "package:missing_one/x", "pip install missing-one"),
        ("tokenizer", "package:mlxtend/x", "the package mlxtend has no folder x"),
        ("delimiter", "ab", "data.delimiter=ab should be null, tab or one character"),
        ("max_length", 2, "data.max_length=2 should be greater than or equal to 3"),
        ("val_fraction", 1, "data.val_fraction=1 should be less than 1"),
        ("val_fraction", 0.95, "would be left for training"),
        ("text_column", "label", "data.text_column and data.label_column are both label"),
    ],
)
def test_bad_setting_is_rejected(key, value, message, read, tmp_path):
    file = write(tmp_path / "x.csv")
    with pytest.raises(ConfigError, match=message):
        read(**{"file": file, "file" if key == "path" else key: value})


def test_folder_without_tokenizer_raises_one_line_error(read, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.tokenizer=.* cannot be loaded") as caught:
        read(write(tmp_path / "x.csv"), tokenizer=str(tmp_path))
    assert "\n" not in str(caught.value)


def test_label_missing_from_training_is_rejected(read, tmp_path):
    file = write(tmp_path / "train.csv")
    write(tmp_path / "val.csv", [("good", "neutral")])
    with pytest.raises(ConfigError, match="the val examples have a label neutral"):
        read(file)
