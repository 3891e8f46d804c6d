"""``spec.json``: any dataclass of the package ``data``; nothing else that the file names is run."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest

from core.errors import ConfigError
from data import text_spec
from data.spec_file import read_spec, spec_content
from data.splits import ImageSpec

SPEC = ImageSpec("photos", 1, (8, 12), ("a", "b"), (0.5,), (0.25,), background=1.0)


@pytest.fixture
def written(tmp_path):
    def write(**changes):
        file = tmp_path / "spec.json"
        file.write_text(json.dumps({**spec_content(SPEC), **changes}))
        return file

    return write


def test_round_trip_and_entries_of_other_versions(written):
    assert read_spec(written()) == SPEC
    assert read_spec(written(new_entry=1)) == SPEC
    older = {key: value for key, value in spec_content(SPEC).items() if key != "class"}
    file = written()
    file.write_text(json.dumps(older))
    assert read_spec(file) == SPEC


def test_new_kind_of_data_needs_no_registration(tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class TableSpec:
        columns: tuple[str, ...]
        kind: ClassVar[str] = "table"

    TableSpec.__module__, TableSpec.__qualname__ = "data.text_spec", "TableSpec"
    monkeypatch.setattr(text_spec, "TableSpec", TableSpec, raising=False)
    (tmp_path / "spec.json").write_text(json.dumps(spec_content(TableSpec(("x", "y")))))
    assert read_spec(tmp_path / "spec.json") == TableSpec(("x", "y"))


@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "data.splits.torch.Tensor",
        "data.splits.Splits",
        "data.splits.TensorSplit",
        "data.splits.nothing",
        "data.nowhere.Spec",
        "data..Spec",
        "deploy.finished_run.FinishedRun",
        3,
    ],
)
def test_class_that_is_no_spec(written, name):
    with pytest.raises(ConfigError, match=f"{name} is no class of data specs"):
        read_spec(written(**{"class": name}))


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
        ({"class": None, "kind": "sound"}, "sound"),
        ({"class": None, "kind": []}, "unhashable"),
    ],
)
def test_damaged(written, changes, message):
    with pytest.raises(ConfigError, match=rf"spec\.json is damaged: .*{message}") as caught:
        read_spec(written(**changes))
    assert "\n" not in str(caught.value)
