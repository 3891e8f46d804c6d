"""Tables from CSV files: what is encoded, what is said, what is refused in one line."""

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
def table(tmp_path, splits_of):
    """``table(HOUSES, target="price", ...)``: the splits of a file of that content."""

    def build(content, test=None, **settings):
        (tmp_path / "train.csv").write_text(content)
        if test is not None:
            (tmp_path / "test.csv").write_text(test)
        fractions = {"val_fraction": 0, "test_fraction": 0}
        return splits_of("table_csv", root=str(tmp_path), path="train.csv", **fractions | settings)

    return build


def test_numbers_categories_and_gaps_are_encoded_by_the_training_rows(table):
    splits = table(HOUSES, TEST, target="price", leave_out="id", units="kEUR")
    encoded, prices = splits.prepare(splits.train.tensors, None)
    order = prices[:, 0].argsort()
    deviation = math.sqrt(500)  # of 80, 120, 60, 100
    rooms = math.sqrt(2 / 3)  # of 3, 2, 4
    columns = {column.name: column for column in splits.spec.columns}
    assert columns["size"].mean == pytest.approx(90)
    assert columns["garden"].categories == ("no", "yes", "")
    expected = torch.tensor(
        [  # size, rooms, Bonn, Ulm, no, yes, none; rooms missing
            [-30 / deviation, -1 / rooms, 0, 0, 1, 0, 0, 1],
            [-10 / deviation, 0, 0, 0, 1, 0, 1, 0],
            [10 / deviation, 1 / rooms, 0, 1, 0, 0, 1, 0],
            [30 / deviation, 0, 1, 1, 0, 1, 0, 0],
        ]
    )
    torch.testing.assert_close(encoded[order], expected)
    assert splits.spec.in_features == expected.shape[1]
    known = splits.spec.quantities
    assert (known.names, known.units, known.mean) == (("price",), ("kEUR",), (235.0,))
    in_test, _ = splits.prepare(splits.test.tensors, None)
    assert in_test[0].tolist() == [0, 0, 0, 0, 0, 0, 1, 0]  # the town is none of training's
    assert splits.notes == [
        "train: missing values among 4 rows: rooms 1, garden 1; replaced by the mean or a separate "
        "category",
        "test: 1 rows have a town unseen in training",
    ]


def test_what_is_told(table):
    assert table(HOUSES, target="town").spec.class_names == ("Bonn", "Ulm")
    numbers = table(HOUSES, target=["size", "price"])
    assert numbers.train.tensors[1].shape == (4, 2)
    content = "x,a,b\n1,0,1\n2,1,1\n"
    labels = table(content, target=["a", "b"], target_type="labels")
    assert labels.spec.class_names == ("a", "b")
    assert sorted(labels.train.tensors[1].tolist()) == [[0, 1], [1, 1]]
    as_classes = table(content, target="a", target_type="classes")
    assert as_classes.spec.class_names == ("0", "1")


def test_one_column_of_numbers_as_categories(table):
    spec = table(
        "street,street number,price\n1,7,10\n2,8,20\n", target="price", categories="street number"
    ).spec
    assert [column.categories for column in spec.columns] == [(), ("7", "8")]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "80,",
            "80 m2,",
            r"^data.path=\S+, line 2: size=80 m2 should be a number, as in other rows;",
        ),
        ("310", "", r"^data.path=.*, line 3: the target price is missing, it should be a number"),
        (
            "310",
            "cheap",
            r"^data.path=.*, line 3: the target price is cheap, it should be a number",
        ),
        ("price", "cost", r"has no column price \(data.target=price\), but id, size"),
        ("310", "inf", "the target price is inf"),
    ],
)
def test_wrong_tables_are_one_line(table, old, new, message):
    with pytest.raises(ConfigError, match=message) as raised:
        table(HOUSES.replace(old, new, 1), target="price")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"leave_out": ["idd"]}, "has no column idd"),
        ({"leave_out": ["id", "size", "rooms", "town", "garden"]}, "has no columns besides data.t"),
        ({"units": ["EUR", "m"]}, r"units=\['EUR', 'm'\] should be one, or one for each"),
        ({"target_type": "labels"}, "needs columns of 0 and 1"),
        ({"target_type": "text"}, "target_type=text should be auto, numbers, cl"),
        ({"target": []}, "data.target names no column"),
        ({"test_fraction": 1.5}, "test_fraction=1.5 should be at least 0 and below"),
    ],
)
def test_wrong_settings_are_one_line(table, settings, message):
    with pytest.raises(ConfigError, match=message) as raised:
        table(HOUSES, **{"target": "price"} | settings)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (
            TEST.replace("90", "large"),
            r"^data.test_path=\S+test.csv, line 2: size=large should be a",
        ),
        (
            "id,size,town,garden,price\n1,1,Ulm,no,3\n",
            r"test.csv has no column rooms, which .*train",
        ),
    ],
)
def test_a_test_file_that_does_not_fit(table, test, message):
    with pytest.raises(ConfigError, match=message):
        table(HOUSES, test, target="price")


def test_a_table_to_predict_from_that_lacks_a_column(table, tmp_path):
    columns = table(HOUSES, target="price").spec.columns
    (tmp_path / "new.csv").write_text("id,size,town,garden\n9,90,Ulm,yes\n")
    message = r"new\.csv has no column rooms \(a column of the training table\), but id, size, town"
    with pytest.raises(ConfigError, match=message):
        list(read_rows(tmp_path / "new.csv", columns, None))
