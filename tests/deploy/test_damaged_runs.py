"""A run with one invalid entry is used, or rejected with a one-line message, not a traceback."""

import json
import random

import pytest
import yaml

from predict import main

FILES = ("config.yaml", "spec.json", "summary.json")
VALUES = (None, True, -1, 0, 2.5, 10**30, float("nan"), "", "x", [], [-1], {}, {"a": 1})
REMOVED = object()


@pytest.fixture(autouse=True)
def small_run(copied_run, tmp_path, monkeypatch):
    """A copy of the finished run that evaluates a single batch.

    The working directory is a folder of its own, since ``data.root=""`` means that directory.
    """
    monkeypatch.chdir(tmp_path)
    set_entry(copied_run / "config.yaml", ("trainer", "limit_eval_steps"), 1)
    return copied_run


def entry_paths(node, path=()):
    """Yield the path of every entry of nested mappings and lists, including the root."""
    yield path
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(value, dict | list):
            yield from entry_paths(value, (*path, key))
        else:
            yield (*path, key)


def set_entry(file, path, value):
    """Set or remove the entry at ``path``; an empty path is the file's whole content."""
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
def test_invalid_entry_is_accepted_or_rejected_in_one_line(seeds, small_run, capsys):
    files = {name: (small_run / name).read_text() for name in FILES}
    for seed in seeds:
        rng = random.Random(seed)
        file = small_run / rng.choice(FILES)
        path = rng.choice(list(entry_paths(yaml.safe_load(file.read_text()))))
        value = rng.choice((*VALUES, REMOVED))
        set_entry(file, path, value)
        exit_code = main([str(small_run), "--test"])
        errors = capsys.readouterr().err.splitlines()
        assert exit_code == len(errors), (file.name, path, value, errors)
        assert all(line.startswith("error: ") for line in errors)
        for name, text in files.items():
            (small_run / name).write_text(text)


@pytest.mark.parametrize("content", ["[]", "3", "null", '{"precision": "x"}', "{"])
def test_malformed_summary_is_ignored_or_rejected_in_one_line(small_run, content, predict):
    (small_run / "summary.json").write_text(content)
    is_rejected = "precision" in content
    out, err = predict(small_run, "--test", code=int(is_rejected))
    if is_rejected:
        assert "summary.json is damaged: precision=x" in "\n".join(err)
    else:
        assert "not recorded" in "\n".join(out)


def test_run_without_newer_trainer_settings_can_be_used(small_run, predict):
    for name in ("average", "swa_start", "monitor_layers"):
        set_entry(small_run / "config.yaml", ("trainer", name), REMOVED)
    assert "test/accuracy" in predict(small_run, "--test")[0][1]
