"""``predict.py`` on real run directories: its answers, and a one-line message per mistake."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from deploy.finished_run import open_run, without_download
from deploy.images import read_image
from trainer.checkpoint import files as checkpoint

SMALL = ("debug=fast", "data.batch_size=4", "data.eval_batch_size=4")


@pytest.fixture(scope="module")
def digits(finished_run):
    """Five test digits ``(5, 1, 28, 28)``, and the classes that the model predicts for them."""
    run = open_run(finished_run)
    data = run.load_data()
    (raw,) = data.read("test", [torch.arange(0, 1000, 200)])
    with torch.inference_mode():
        classes = run.model(data.prepare(raw, None)[0]).argmax(1)
    return raw[0], list(map(str, classes.tolist()))


@pytest.fixture
def digit(digits, tmp_path):
    """The first of the digits as a PNG file."""
    return save(digits[0][0], tmp_path / "digit.png")


def save(pixels, file):
    Image.fromarray(pixels.squeeze(0).numpy()).save(file)
    return file


def classes_of(out):
    return [line.split("  ")[1] for line in out]


def test_image_size_and_mode_are_converted_with_a_note(finished_run, digits, tmp_path, predict):
    large = Image.fromarray(digits[0][0, 0].numpy()).convert("RGB").resize((84, 84))
    large.save(tmp_path / "large.png")
    out, err = predict(finished_run, tmp_path / "large.png")
    assert classes_of(out) == digits[1][:1]
    assert err[0].endswith("large.png: converted to grayscale")
    assert err[1].endswith("large.png: 84x84 resized to 28x28")
    for size, note in (
        ((100, 40), "100x40 cropped to 40x40 and resized to 28x28"),
        ((28, 30), "28x30 cropped to 28x28"),
    ):
        Image.new("L", size).save(tmp_path / "wide.png")
        _, err = predict(finished_run, tmp_path / "wide.png")
        assert err == [f"note: {tmp_path}/wide.png: {note}"]


def test_photos_of_dark_digits_on_paper_are_inverted(finished_run, digits, tmp_path, predict):
    """The paper is grey, unevenly lit and grainy, and the ink is not quite black."""
    images, classes = digits
    rng = numpy.random.default_rng(0)
    for i, image in enumerate(images):
        ink = Image.fromarray(image[0].numpy()).resize((560, 560), Image.Resampling.BICUBIC)
        paper = numpy.linspace(180, 225, 560) + rng.normal(0, 4, (560, 560))
        photo = paper * (1 - 0.8 * numpy.asarray(ink) / 255)
        Image.fromarray(photo.clip(0, 255).astype(numpy.uint8)).save(tmp_path / f"{i}.jpg")
    out, err = predict(finished_run, tmp_path)
    assert classes_of(out) == classes
    assert "0.jpg and 4 more: inverted, as its background is the opposite of training's" in err[1]
    _, err = predict(finished_run, tmp_path, "--no-invert")
    assert "the image must be inverted (--invert)" in err[-1]


def test_inverted_digit_is_restored(finished_run, digits, tmp_path, predict):
    images, classes = digits
    file = save(255 - images[0], tmp_path / "inverted.png")
    for options in ([], ["--invert"]):
        out, (note,) = predict(finished_run, file, *options)
        assert classes_of(out) == classes[:1]
        assert "inverted" in note
    read, _ = read_image(file, open_run(finished_run).spec)
    assert (read[0] / 255 - images[0] / images[0].max()).abs().max() < 0.16  # faint ink is erased
    assert read.max() == 255


def test_folder_is_searched_for_visible_images(finished_run, digits, tmp_path, predict):
    """Hidden files and folders, files of other types and links to folders are skipped."""
    images, _ = digits
    folder = tmp_path / "photos"
    for name in (".thumbnails", "more"):
        (folder / name).mkdir(parents=True)
        save(images[0], folder / name / "0.png")
    save(images[1], folder / "a.png")
    Image.fromarray(images[2, 0].numpy()).save(folder / "c.jfif", format="JPEG")
    (folder / "._a.png").write_bytes(b"\0\5\x16\7")
    (folder / "notes.txt").write_text("not an image")
    (folder / "loop").symlink_to(folder)
    out, err = predict(finished_run, folder)
    names = [str(Path(line.split("  ")[0]).relative_to(folder)) for line in out]
    assert names == ["a.png", "c.jfif", "more/0.png"]
    assert err == []


def test_damaged_images_are_reported_and_others_classified(finished_run, digit, tmp_path, predict):
    (tmp_path / "cut.png").write_bytes(digit.read_bytes()[:60])
    Image.new("F", (28, 28)).save(tmp_path / "deep.tif")
    (tmp_path / "link.png").symlink_to("nowhere.png")
    out, err = predict(finished_run, tmp_path, tmp_path / "missing.png", code=1)
    assert [line.split("  ")[0] for line in out] == [str(digit)]
    assert all(line.startswith("error: ") for line in err)
    assert "32-bit pixels" in err[1]
    assert err[2:] == [
        f"error: cannot read the image {tmp_path}/{name}.png: No such file or directory"
        for name in ("link", "missing")
    ]


def test_file_name_that_is_not_utf8_is_escaped(finished_run, digits, tmp_path, predict):
    file = save(digits[0][0], tmp_path / os.fsdecode(b"\xff.png"))
    out, _ = predict(finished_run, file, "--csv", tmp_path / "out.csv")
    assert out[0].startswith(f"{tmp_path}/\\udcff.png  ")
    assert "\\udcff.png,1," in (tmp_path / "out.csv").read_text()


def test_predictions_are_written_as_json_and_csv(finished_run, digits, tmp_path, predict):
    images, classes = digits
    for i in range(2):
        save(images[i], tmp_path / f"{i}.png")
    table, records = tmp_path / "a.csv", tmp_path / "a.json"
    out, _ = predict(finished_run, tmp_path, "--top-k", 3, "--json", records, "--csv", table)
    assert [len(line.split("  ")) for line in out] == [7, 7]
    rows = json.loads(records.read_text())
    assert [(row["input"], row["rank"]) for row in rows] == [
        (str(tmp_path / f"{i}.png"), rank) for i in range(2) for rank in (1, 2, 3)
    ]
    assert [row["class"] for row in rows if row["rank"] == 1] == classes[:2]
    assert rows[0]["probability"] > rows[1]["probability"] > rows[2]["probability"]
    with table.open() as stream:
        assert [{k: str(v) for k, v in row.items()} for row in rows] == list(csv.DictReader(stream))
    for option in ("--json", "--csv"):
        _, err = predict(finished_run, "--test", option, tmp_path, code=1)
        assert err == [f"error: cannot write {tmp_path}: Is a directory"]
    read_end, write_end = os.pipe()  # a pipe, as in --csv /dev/stdout
    predict(finished_run, tmp_path / "0.png", "--csv", f"/dev/fd/{write_end}")
    os.close(write_end)
    with open(read_end) as stream:
        assert stream.readline() == "input,rank,class,probability\n"


def test_latest_uses_the_newest_run(copied_run, digit, tmp_path, monkeypatch, predict):
    monkeypatch.chdir(tmp_path)
    _, err = predict("latest", "--test", code=1)
    assert err == ["error: latest: there is no run directory below outputs/ or multirun/"]
    for number, name in enumerate(("multirun/a/0", "outputs/day/1", "outputs/day/0")):
        shutil.copytree(copied_run, name)
        os.utime(Path(name) / "spec.json", (number, number))
    _, err = predict("latest", digit)
    assert err == ["note: the latest run is outputs/day/0"]


def replace_in_file(file, old, new):
    file.write_text(file.read_text().replace(old, new))


def test_model_outputs_of_unknown_kind_are_rejected(copied_run, digit, predict):
    known = "objectives.classification.Classification"
    replace_in_file(copied_run / "config.yaml", known, "objectives.base.Objective")
    for arguments in ([digit], ["--export", "onnx"], ["--num-samples", "4"]):
        _, (error,) = predict(copied_run, *arguments, code=1)
        assert "the outputs of objectives.base.Objective on data=mnist5k cannot be shown" in error


def test_test_option_compares_with_recorded_metrics(copied_run, tmp_path, predict):
    out, _ = predict(copied_run, "--test", "--json", tmp_path / "a.json")
    assert [line.partition("(")[2] for line in out] == ["as recorded)"] * 2
    rows = json.loads((tmp_path / "a.json").read_text())
    assert [row["metric"] for row in rows] == ["test/loss", "test/accuracy"]
    assert all(row["value"] == row["recorded"] for row in rows)
    summary = json.loads((copied_run / "summary.json").read_text())
    summary |= {"test/accuracy": summary["test/accuracy"] + 0.25, "status": "running"}
    (copied_run / "summary.json").write_text(json.dumps(summary))
    out, (note,) = predict(copied_run, "--test")
    assert "a difference of 0.25" in out[1]
    assert note == f"note: the status of {copied_run} is running: using its best weights so far"


def test_config_spec_and_checkpoint_are_sufficient(
    finished_run, digit, tmp_path, monkeypatch, predict
):
    (tmp_path / "bare" / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "spec.json", "checkpoints/last.pt"):
        shutil.copy(finished_run / name, tmp_path / "bare" / name)
    replace_in_file(tmp_path / "bare" / "config.yaml", "root: ", "root: /gone")
    monkeypatch.chdir(tmp_path)
    assert len(predict("bare", digit)[0]) == 1


def test_averaged_weights_are_used_if_the_run_has_them(train):
    run_dir = train("debug=fast", "trainer.ema_decay=0.9")
    content = checkpoint.load(run_dir / "checkpoints" / "best.pt")
    used = open_run(run_dir).model.state_dict()
    assert all(torch.equal(used[name], value) for name, value in content["ema"].items())
    assert any(not torch.equal(used[name], value) for name, value in content["model"].items())


def test_pretrained_weights_are_not_downloaded_again():
    assert without_download({"name": "resnet18", "pretrained": True})["pretrained"] is False
    assert without_download({"pretrained": "a/path"})["pretrained"] is False


@pytest.fixture(scope="module")
def text_run(train_once):
    """The run directory of a small transformer trained on text."""
    return train_once("model=transformer", "model.num_layers=1", "model.width=32", *SMALL)


def test_generated_text_is_reproducible_for_a_seed(text_run, predict):
    def text(*options):
        arguments = ("--prompt", "The ", "--max-new-tokens", 20, *options)
        return "\n".join(predict(text_run, *arguments)[0])

    assert text().startswith("The ")
    assert len(text("--top-k", 1)) == len("The ") + 20
    assert text("--seed", 3) == text("--seed", 3) != text("--seed", 4)
    assert text("--temperature", 1e-40) == text("--temperature", 0)


def test_long_prompt_is_noted_and_invalid_options_are_rejected(text_run, predict):
    _, (note,) = predict(text_run, "--prompt", "The " * 100, "--max-new-tokens", 1)
    assert "the prompt has 400 tokens" in note
    for arguments, message in {
        ("--prompt", "\a"): "error: --prompt: characters that the model has no token for: '\\x07'",
        ("digit.png",): f"error: the model of {text_run} continues text: use --prompt, or --test",
        ("--prompt", "The ", "--temperature", -1): "error: --temperature -1",
        ("--prompt", "The ", "--top-p", 0): "error: --top-p 0",
        ("--prompt", "The ", "--max-new-tokens", -1): "error: --max-new-tokens -1",
    }.items():
        _, (error,) = predict(text_run, *arguments, code=1)
        assert error.startswith(message)


def test_samples_are_written_as_a_square_grid(train, finished_run, tmp_path, predict):
    extractor = f"objective.fid_extractor={finished_run}"
    run_dir = train("model=dcgan", "model.width=8", *SMALL, extractor)
    predict(run_dir, "--num-samples", 9, "--output", tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width == grid.height >= 3 * 28
    (tmp_path / "folder.png").mkdir()
    for name, message in {
        "grid.txt": " should be a file that ends in .png",
        "folder.png": ": Is a directory",
        "nowhere/grid.png": ": No such file or directory",
    }.items():
        file = tmp_path / name
        _, (error,) = predict(run_dir, "--num-samples", 2, "--output", file, code=1)
        assert error.endswith(f"{file}{message}")
    _, (error,) = predict(run_dir, "digit.png", code=1)
    assert "generates images: use --num-samples" in error


DAMAGE = {
    "has no checkpoint": lambda run: shutil.rmtree(run / "checkpoints"),
    "is not a run directory: it has no spec.json": lambda run: (run / "spec.json").unlink(),
    "best.pt is damaged": lambda run: (run / "checkpoints" / "best.pt").write_bytes(b"PK"),
    "the checkpoint does not fit the model in config.yaml": lambda run: replace_in_file(
        run / "config.yaml", "num_classes: null", "num_classes: 3"
    ),
    "os.system is not allowed": lambda run: replace_in_file(
        run / "config.yaml", "models.lightcnn.LightCNN", "os.system"
    ),
    "error: there is no directory": shutil.rmtree,
}


@pytest.mark.parametrize("message", DAMAGE)
def test_unusable_run_directory_is_rejected_in_one_line(message, copied_run, predict):
    DAMAGE[message](copied_run)
    out, (error,) = predict(copied_run, "--test", code=1)
    assert out == []
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", "The"], "classifies images"),
        (["--num-samples", "4"], "classifies images"),
        ([], "give one of: files"),
        (["--prompt", "\udcff The"], "argument --prompt: the text is not UTF-8"),
        (["--text", "\udcff The"], "argument --text: the text is not UTF-8"),
        (["--test", "--prompt", "The"], "give one of: files"),
        (["--test", "--top-k", "3"], "--top-k has no effect with --test"),
        (["x.png", "--output", "y"], "--output has no effect with files"),
        (["--num-samples", "4", "--csv", "y"], "--csv has no effect with --num-samples"),
        (["--export", "onnx", "--invert"], "--invert has no effect with --export"),
        (["x.png", "--top-k", "0"], "argument --top-k: 0 should be at least 1"),
        (["--num-samples", "0"], "argument --num-samples: 0 should be at least 1"),
        (["--export", "torch", "--quantize", "int8"], "leave --export torch out"),
        (["--tset"], "unrecognized arguments: --tset"),
        (["--num-samples", "4", "--seed", "9" * 30], "should be at least 0 and below 2**64"),
        (["--export", "torch", "--output", "/proc/x"], "/proc/x: No such file or directory"),
        (["--export", "torch", "--output", __file__], "test_predict.py: File exists"),
        (["no/such/file.png"], "cannot read the image no/such/file.png"),
    ],
)
def test_invalid_arguments_are_rejected_in_one_line(arguments, message, finished_run, predict):
    out, (error,) = predict(finished_run, *arguments, code=1)
    assert out == []
    assert message in error
