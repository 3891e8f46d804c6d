"""Tables from CSV files: encoding, target types, notes on gaps, and one-line errors."""

import math

import pytest
import torch

from core.errors import ConfigError
from data.table_csv import read_rows

HOUSES = """id,size,rooms,town,garden,price
1,80,3,Ulm,yes,200
2,120,,Bonn,no,310
3,60,2,Ulm,,150
4,100,4,Bonn,yes,280
"""
TEST = "id,size,rooms,town,garden,price\n9,90,3,Kiel,yes,230\n"


@pytest.fixture
def table(tmp_path, make_splits):
    """Return a function that writes a CSV file and builds its splits: ``table(HOUSES, ...)``."""

    def build(content, test=None, **settings):
        (tmp_path / "train.csv").write_text(content)
        if test is not None:
            (tmp_path / "test.csv").write_text(test)
        settings = {"val_fraction": 0, "test_fraction": 0} | settings
        return make_splits("table_csv", root=str(tmp_path), path="train.csv", **settings)

    return build


def test_columns_are_encoded_by_statistics_of_training_rows(table):
    splits = table(HOUSES, TEST, target="price", leave_out="id", units="kEUR")
    encoded, prices = splits.prepare(splits.train.tensors, None)
    order = prices[:, 0].argsort()
    size_std = math.sqrt(500)  # of 80, 120, 60, 100
    rooms_std = math.sqrt(2 / 3)  # of 3, 2, 4
    columns = {column.name: column for column in splits.spec.columns}
    assert columns["size"].mean == pytest.approx(90)
    assert columns["garden"].categories == ("no", "yes", "")
    expected = torch.tensor(
        [  # size, rooms, Bonn, Ulm, no, yes, none; rooms missing
            [-30 / size_std, -1 / rooms_std, 0, 0, 1, 0, 0, 1],
            [-10 / size_std, 0, 0, 0, 1, 0, 1, 0],
            [10 / size_std, 1 / rooms_std, 0, 1, 0, 0, 1, 0],
            [30 / size_std, 0, 1, 1, 0, 1, 0, 0],
        ]
    )
    torch.testing.assert_close(encoded[order], expected)
    assert splits.spec.in_features == expected.shape[1]
    quantities = splits.spec.quantities
    assert (quantities.names, quantities.units) == (("price",), ("kEUR",))
    assert quantities.mean == (235.0,)
    test_features, _ = splits.prepare(splits.test.tensors, None)
    assert test_features[0].tolist() == [0, 0, 0, 0, 0, 0, 1, 0]  # the town is unseen in training
    assert splits.notes == [
        "train: missing values among 4 rows: rooms 1, garden 1; replaced by the mean or a separate "
        "category",
        "test: 1 rows have a town unseen in training",
    ]


def test_target_type_is_inferred_or_given(table):
    assert table(HOUSES, target="town").spec.class_names == ("Bonn", "Ulm")
    regression = table(HOUSES, target=["size", "price"])
    assert regression.train.tensors[1].shape == (4, 2)
    content = "x,a,b\n1,0,1\n2,1,1\n"
    labels = table(content, target=["a", "b"], target_type="labels")
    assert labels.spec.class_names == ("a", "b")
    assert sorted(labels.train.tensors[1].tolist()) == [[0, 1], [1, 1]]
    as_classes = table(content, target="a", target_type="classes")
    assert as_classes.spec.class_names == ("0", "1")


def test_numeric_column_can_be_categorical(table):
    spec = table(
        "street,street number,price\n1,7,10\n2,8,20\n", target="price", categories="street number"
    ).spec
    assert [column.categories for column in spec.columns] == [(), ("7", "8")]


ALL_BUT_TARGET = ["id", "size", "rooms", "town", "garden"]


@pytest.mark.parametrize(
    ("content", "test", "settings", "message"),
    [
        (
            HOUSES.replace("80,", "80 m2,"),
            None,
            {},
            r"path=\S+, line 2: size=80 m2 should be a num",
        ),
        (HOUSES.replace("310", ""), None, {}, "line 3: the target price is missing, it should be"),
        (HOUSES.replace("310", "cheap"), None, {}, "line 3: the target price is cheap, it should"),
        (HOUSES.replace("310", "inf"), None, {}, "the target price is inf"),
        (
            HOUSES.replace("price", "cost"),
            None,
            {},
            r"no column price \(data.target=price\), but id",
        ),
        (
            HOUSES,
            TEST.replace("90", "large"),
            {},
            r"test_path=\S+test.csv, line 2: size=large shou",
        ),
        (
            HOUSES,
            TEST.replace(",rooms", "").replace(",3", ""),
            {},
            "test.csv has no column rooms, wh",
        ),
        (HOUSES, None, {"leave_out": ["idd"]}, "has no column idd"),
        (HOUSES, None, {"leave_out": ALL_BUT_TARGET}, "has no columns besides data.t"),
        (HOUSES, None, {"units": ["EUR", "m"]}, r"units=\['EUR', 'm'\] should be one, or one for"),
        (HOUSES, None, {"target_type": "labels"}, "needs columns of 0 and 1"),
        (HOUSES, None, {"target_type": "text"}, "target_type=text should be 'auto', 'numbers', "),
        (HOUSES, None, {"target": []}, "data.target names no column"),
        (HOUSES, None, {"test_fraction": 1.5}, "test_fraction=1.5 should be less than 1"),
    ],
)
def test_wrong_table_or_setting_raises_one_line_error(table, content, test, settings, message):
    with pytest.raises(ConfigError, match=message) as raised:
        table(content, test, **{"target": "price"} | settings)
    assert "\n" not in str(raised.value)


def test_missing_column_at_prediction_is_rejected(table, tmp_path):
    columns = table(HOUSES, target="price").spec.columns
    (tmp_path / "new.csv").write_text("id,size,town,garden\n9,90,Ulm,yes\n")
    message = r"new\.csv has no column rooms \(a column of the training table\), but id, size, town"
    with pytest.raises(ConfigError, match=message):
        list(read_rows(tmp_path / "new.csv", columns, None))
