"""A run directory with one wrong entry is used, or refused in one line; never a traceback."""

import json
import random

import pytest
import yaml

from predict import main

FILES = ("config.yaml", "spec.json", "summary.json")
VALUES = (None, True, -1, 0, 2.5, 10**30, float("nan"), "", "x", [], [-1], {}, {"a": 1})
REMOVED = object()


@pytest.fixture(autouse=True)
def run_of_few(copied_run, tmp_path, monkeypatch):
    """Measured on one batch; elsewhere, since a data.root of "" is the working directory."""
    monkeypatch.chdir(tmp_path)
    change(copied_run / "config.yaml", ("trainer", "limit_eval_steps"), 1)
    return copied_run


def places(node, path=()):
    """The path of every entry of nested mappings and lists, the root's included."""
    yield path
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def change(file, path, value):
    """Set or remove the entry at ``path``; all of the file's content where that is empty."""
    content = {"root": yaml.safe_load(file.read_text())}  # JSON is YAML
    *parents, last = ("root", *path)
    node = content
    for key in parents:
        node = node[key]
    if value is REMOVED:
        del node[last]
    else:
        node[last] = value
    write = yaml.safe_dump if file.suffix == ".yaml" else json.dumps
    file.write_text(write(content.get("root")))


@pytest.mark.parametrize(
    "seeds", [range(30), pytest.param(range(100, 1300), marks=pytest.mark.slow)], ids=len
)
def test_one_wrong_entry(seeds, run_of_few, capsys):
    files = {name: (run_of_few / name).read_text() for name in FILES}
    for seed in seeds:
        draw = random.Random(seed)
        file = run_of_few / draw.choice(FILES)
        path = draw.choice(list(places(yaml.safe_load(file.read_text()))))
        value = draw.choice((*VALUES, REMOVED))
        change(file, path, value)
        code = main([str(run_of_few), "--test"])
        errors = capsys.readouterr().err.splitlines()
        assert code == len(errors), (file.name, path, value, errors)
        assert all(line.startswith("error: ") for line in errors)
        for name, text in files.items():
            (run_of_few / name).write_text(text)


@pytest.mark.parametrize("content", ["[]", "3", "null", '{"precision": "x"}', "{"])
def test_summary_of_another_kind(run_of_few, content, predict):
    (run_of_few / "summary.json").write_text(content)
    is_damaged = "precision" in content
    out, err = predict(run_of_few, "--test", code=int(is_damaged))
    shown = (err, "summary.json is damaged: precision=x") if is_damaged else (out, "not recorded")
    assert shown[1] in "\n".join(shown[0])


def test_a_run_made_before_the_trainer_got_a_setting_is_used(run_of_few, predict):
    for since in ("average", "swa_start", "monitor_layers"):
        change(run_of_few / "config.yaml", ("trainer", since), REMOVED)
    assert "test/accuracy" in predict(run_of_few, "--test")[0][1]
