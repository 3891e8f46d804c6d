"""``spec.json`` restores any data spec, and runs no other code that the file names."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest

from core.errors import ConfigError
from data import text
from data.spec_file import read_spec, spec_content
from data.splits import ImageSpec

SPEC = ImageSpec("photos", 1, (8, 12), ("a", "b"), (0.5,), (0.25,), background=1.0)


@pytest.fixture
def write_spec(tmp_path):
    """Return a function that writes ``SPEC`` to a file, some of its entries changed."""

    def write(**changes):
        file = tmp_path / "spec.json"
        file.write_text(json.dumps({**spec_content(SPEC), **changes}))
        return file

    return write


def test_spec_round_trips(write_spec):
    assert read_spec(write_spec()) == SPEC


def test_new_spec_class_needs_no_registration(tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class TableSpec:
        columns: tuple[str, ...]
        kind: ClassVar[str] = "table"

    TableSpec.__module__, TableSpec.__qualname__ = "data.text", "TableSpec"
    monkeypatch.setattr(text, "TableSpec", TableSpec, raising=False)
    (tmp_path / "spec.json").write_text(json.dumps(spec_content(TableSpec(("x", "y")))))
    assert read_spec(tmp_path / "spec.json") == TableSpec(("x", "y"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os.system", "is not allowed"),
        ("data.splits.Splits", "is not a class of data specs"),  # a dataclass, but not a spec
        ("data.splits.TensorSplit", "is not a class of data specs"),
        (None, "is not allowed"),
    ],
)
def test_class_that_is_not_a_spec_is_rejected(write_spec, name, message):
    with pytest.raises(ConfigError, match=f"spec.json.*{name}.*{message}"):
        read_spec(write_spec(**{"class": name}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"in_channels": "1"}, "in_channels: Input should be a valid integer"),
        ({"in_channels": True}, "in_channels: Input should be a valid integer"),
        ({"std": [0.0]}, "std should have a value per channel"),
        ({"mean": []}, "std should have a value per channel"),
        ({"image_size": [0, 8]}, "should be above 0"),
        ({"image_size": [8]}, "image_size.1: Field required"),
        ({"class_names": "ab"}, "class_names: Input should be a valid array"),
    ],
)
def test_damaged_spec_raises_one_line_error(write_spec, changes, message):
    with pytest.raises(ConfigError, match=rf"spec\.json is damaged: .*{message}") as caught:
        read_spec(write_spec(**changes))
    assert "\n" not in str(caught.value)
