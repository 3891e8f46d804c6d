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
def elsewhere(tmp_path, monkeypatch):
    """A data.root of "" is the working directory."""
    monkeypatch.chdir(tmp_path)


def places(node, path=()):
    """The path of every entry of nested mappings and lists, the root's included."""
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def changed(content, path, value):
    if not path:
        return None if value is REMOVED else value
    *parents, last = path
    node = content
    for key in parents:
        node = node[key]
    if value is REMOVED:
        del node[last]
    else:
        node[last] = value
    return content


def damage(run_dir, draw):
    """Change, add or remove one entry of one file; what was done."""
    file = run_dir / draw.choice(FILES)
    content = yaml.safe_load(file.read_text())  # JSON is YAML
    path = draw.choice(list(places(content)))
    value = draw.choice((*VALUES, REMOVED))
    write = yaml.safe_dump if file.suffix == ".yaml" else json.dumps
    file.write_text(write(changed(content, path, value)))
    return file.name, path, value


def check(copied_run, seed, capsys):
    files = {name: (copied_run / name).read_text() for name in FILES}
    done = damage(copied_run, random.Random(seed))
    code = main([str(copied_run), "--test"])
    output = capsys.readouterr()
    assert code == len(output.err.splitlines()), (done, output.err)
    assert all(line.startswith("error: ") for line in output.err.splitlines()), done
    for name, text in files.items():
        (copied_run / name).write_text(text)


@pytest.fixture
def run_of_few(copied_run):
    """Measured on one batch."""
    config = yaml.safe_load((copied_run / "config.yaml").read_text())
    config["trainer"]["limit_eval_steps"] = 1
    (copied_run / "config.yaml").write_text(yaml.safe_dump(config))
    return copied_run


def test_one_wrong_entry(run_of_few, capsys):
    for seed in range(30):
        check(run_of_few, seed, capsys)


@pytest.mark.slow
def test_many_wrong_entries(run_of_few, capsys):
    for seed in range(100, 1300):
        check(run_of_few, seed, capsys)


@pytest.mark.parametrize("content", ["[]", "3", "null", '{"precision": "x"}', "{"])
def test_summary_of_another_kind(run_of_few, content, capsys):
    (run_of_few / "summary.json").write_text(content)
    assert main([str(run_of_few), "--test"]) == ("precision" in content)
    output = capsys.readouterr()
    assert "summary.json is damaged: precision=x" in output.err or "not recorded" in output.out


def test_a_run_made_before_the_trainer_got_a_setting_is_used(run_of_few, capsys):
    file = run_of_few / "config.yaml"
    config = yaml.safe_load(file.read_text())
    for since in ("average", "swa_start", "monitor_layers"):
        del config["trainer"][since]
    file.write_text(yaml.safe_dump(config))
    assert main([str(run_of_few), "--test"]) == 0
    assert "test/accuracy" in capsys.readouterr().out
