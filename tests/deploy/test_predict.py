"""``predict.py`` on real run directories: answers, and one line for every mistake."""

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
from predict import main
from trainer import checkpoint


@pytest.fixture
def digits(finished_run):
    """Five test digits as the files a user has, and their classes by the model itself."""
    run = open_run(finished_run)
    data = run.load_data()
    (raw,) = data.read("test", [torch.arange(0, 1000, 200)])
    with torch.inference_mode():
        classes = run.model(data.prepare(raw, None)[0]).argmax(1)
    return raw[0], classes.tolist()


def save(pixels, file):
    Image.fromarray(pixels.squeeze(0).numpy()).save(file)
    return file


def lines(capsys):
    captured = capsys.readouterr()
    return captured.out.splitlines(), captured.err.splitlines()


def test_another_size_and_mode_is_fitted_and_said(finished_run, digits, tmp_path, capsys):
    images, classes = digits
    large = Image.fromarray(images[0, 0].numpy()).convert("RGB").resize((84, 84))
    large.save(tmp_path / "large.png")
    assert main([str(finished_run), str(tmp_path / "large.png")]) == 0
    out, err = lines(capsys)
    assert out[0].split("  ")[1] == str(classes[0])
    assert err[0].endswith("large.png: converted to grayscale")
    assert err[1].endswith("large.png: 84x84 resized to 28x28")
    for size, note in (
        ((100, 40), "100x40 cropped to 40x40 and resized to 28x28"),
        ((28, 30), "28x30 cropped to 28x28"),
    ):
        Image.new("L", size).save(tmp_path / "wide.png")
        assert main([str(finished_run), str(tmp_path / "wide.png")]) == 0
        assert lines(capsys)[1] == [f"note: {tmp_path}/wide.png: {note}"]


def test_photographs_of_dark_digits_on_paper(finished_run, digits, tmp_path, capsys):
    """Grey paper, shaded and grained, a pen that is not quite black."""
    images, classes = digits
    random = numpy.random.default_rng(0)
    for i, image in enumerate(images):
        ink = Image.fromarray(image[0].numpy()).resize((560, 560), Image.Resampling.BICUBIC)
        paper = numpy.linspace(180, 225, 560) + random.normal(0, 4, (560, 560))
        photo = paper * (1 - 0.8 * numpy.asarray(ink) / 255)
        Image.fromarray(photo.clip(0, 255).astype(numpy.uint8)).save(tmp_path / f"{i}.jpg")
    assert main([str(finished_run), str(tmp_path)]) == 0
    out, err = lines(capsys)
    assert [line.split("  ")[1] for line in out] == [str(c) for c in classes]
    assert "0.jpg and 4 more: inverted, since its ground is the opposite of training's" in err[1]
    assert main([str(finished_run), str(tmp_path), "--no-invert"]) == 0
    assert "the image must be inverted (--invert)" in lines(capsys)[1][-1]


def test_invert_gives_the_digit_back(finished_run, digits, tmp_path, capsys):
    images, classes = digits
    file = str(save(255 - images[0], tmp_path / "inverted.png"))
    for options in ([], ["--invert"]):
        assert main([str(finished_run), file, *options]) == 0
        out, err = lines(capsys)
        assert out[0].split("  ")[1] == str(classes[0])
        assert len(err) == 1
        assert "inverted" in err[0]
    read, _ = read_image(Path(file), open_run(finished_run).spec)
    digit = images[0] / images[0].max()
    assert (read[0] / 255 - digit).abs().max() < 0.16  # what is fainter counts as paper
    assert read.max() == 255


def test_a_run_that_did_not_finish_is_said(copied_run, digits, tmp_path, capsys):
    file = save(digits[0][0], tmp_path / "digit.png")
    summary = json.loads((copied_run / "summary.json").read_text())
    (copied_run / "summary.json").write_text(json.dumps({**summary, "status": "running"}))
    assert main([str(copied_run), str(file)]) == 0
    assert lines(capsys)[1] == [
        f"note: the status of {copied_run} is running: its best weights up to there are used"
    ]


def test_what_a_person_sees_in_a_folder(finished_run, digits, tmp_path, capsys):
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
    assert main([str(finished_run), str(folder)]) == 0
    out, err = lines(capsys)
    names = [str(Path(line.split("  ")[0]).relative_to(folder)) for line in out]
    assert names == ["a.png", "c.jfif", "more/0.png"]
    assert err == []
    (folder / "gone.png").symlink_to("nowhere.png")
    assert main([str(finished_run), str(folder)]) == 1
    out, err = lines(capsys)
    assert len(out) == 3
    assert err == [f"error: cannot read the image {folder}/gone.png: No such file or directory"]


def test_name_that_is_no_utf8(finished_run, digits, tmp_path, capsys):
    file = save(digits[0][0], tmp_path / os.fsdecode(b"\xff.png"))
    results = tmp_path / "out.csv"
    assert main([str(finished_run), str(file), "--csv", str(results)]) == 0
    assert lines(capsys)[0][0].startswith(f"{tmp_path}/\\udcff.png  ")
    assert "\\udcff.png,1," in results.read_text()


def test_answers_as_files(finished_run, digits, tmp_path, capsys):
    images, classes = digits
    for i in range(2):
        save(images[i], tmp_path / f"{i}.png")
    files = ["--json", str(tmp_path / "a.json"), "--csv", str(tmp_path / "a.csv")]
    assert main([str(finished_run), str(tmp_path), "--top-k", "3", *files]) == 0
    out, _ = lines(capsys)
    assert [len(line.split("  ")) for line in out] == [7, 7]
    rows = json.loads((tmp_path / "a.json").read_text())
    assert [(row["input"], row["rank"]) for row in rows] == [
        (str(tmp_path / f"{i}.png"), rank) for i in range(2) for rank in (1, 2, 3)
    ]
    assert [row["class"] for row in rows if row["rank"] == 1] == [str(c) for c in classes[:2]]
    assert rows[0]["probability"] > rows[1]["probability"] > rows[2]["probability"]
    with (tmp_path / "a.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [{k: str(v) for k, v in row.items()} for row in rows] == table
    assert main([str(finished_run), "--test", "--json", str(tmp_path / "a.json")]) == 0
    rows = json.loads((tmp_path / "a.json").read_text())
    assert [row["metric"] for row in rows] == ["test/loss", "test/accuracy"]
    assert all(row["value"] == row["recorded"] for row in rows)
    for option in ("--json", "--csv"):
        assert main([str(finished_run), "--test", option, str(tmp_path)]) == 1
        assert lines(capsys)[1] == [f"error: cannot write {tmp_path}: Is a directory"]


def test_latest_run(copied_run, digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["latest", "--test"]) == 1
    assert "latest: there is no run directory below outputs/ or multirun/" in lines(capsys)[1][0]
    for number, name in enumerate(("multirun/a/0", "outputs/day/1", "outputs/day/0")):
        shutil.copytree(copied_run, name)
        os.utime(Path(name) / "spec.json", (number, number))
    assert main(["latest", str(save(digits[0][0], tmp_path / "digit.png"))]) == 0
    assert lines(capsys)[1] == ["note: the latest run is outputs/day/0"]


def test_objective_whose_outputs_are_no_classes(copied_run, digits, tmp_path, capsys):
    config = (copied_run / "config.yaml").read_text()
    config = config.replace("objectives.classification.Classification", "objectives.base.Objective")
    (copied_run / "config.yaml").write_text(config)
    file = str(save(digits[0][0], tmp_path / "digit.png"))
    for use in ([file], ["--export", "onnx"], ["--num-samples", "4"]):
        assert main([str(copied_run), *use]) == 1
        (error,) = lines(capsys)[1]
        assert "the outputs of objectives.base.Objective on data=mnist5k cannot be shown" in error


def test_damaged_image_is_one_line_and_the_others_are_classified(
    finished_run, digits, tmp_path, capsys
):
    good = save(digits[0][0], tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:60])
    Image.new("F", (28, 28)).save(tmp_path / "deep.tif")
    files = [tmp_path / name for name in ("cut.png", "deep.tif", "missing.png", "good.png")]
    assert main([str(finished_run), *map(str, files)]) == 1
    out, err = lines(capsys)
    assert [line.split("  ")[0] for line in out] == [str(good)]
    assert len(err) == 3
    assert all(line.startswith("error: ") for line in err)
    assert "32-bit pixels" in err[1]


def test_test_compares_with_the_recorded_numbers(copied_run, capsys):
    assert main([str(copied_run), "--test"]) == 0
    out, _ = lines(capsys)
    assert len(out) == 2
    assert all(line.endswith("(as recorded)") for line in out)
    summary = json.loads((copied_run / "summary.json").read_text())
    summary["test/accuracy"] += 0.25
    (copied_run / "summary.json").write_text(json.dumps(summary))
    main([str(copied_run), "--test"])
    assert "a difference of 0.25" in lines(capsys)[0][1]


def test_nothing_but_the_run_directory_is_needed(
    finished_run, digits, tmp_path, monkeypatch, capsys
):
    bare = tmp_path / "bare"
    (bare / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "spec.json", "checkpoints/last.pt"):
        shutil.copy(finished_run / name, bare / name)
    config = (bare / "config.yaml").read_text().replace("root: ", "root: /gone")
    (bare / "config.yaml").write_text(config)
    monkeypatch.chdir(tmp_path)
    assert main(["bare", str(save(digits[0][0], tmp_path / "digit.png"))]) == 0
    assert len(lines(capsys)[0]) == 1


def test_averaged_weights_are_used_where_the_run_kept_them(train):
    run_dir = train("debug=fast", "trainer.ema_decay=0.9")
    content = checkpoint.load(run_dir / "checkpoints" / "best.pt")
    used = open_run(run_dir).model.state_dict()
    assert all(torch.equal(used[name], value) for name, value in content["ema"].items())
    assert any(not torch.equal(used[name], value) for name, value in content["model"].items())


def test_published_weights_are_not_fetched_again():
    assert without_download({"name": "resnet18", "pretrained": True})["pretrained"] is False
    assert without_download({"pretrained": "a/path"})["pretrained"] is False


SMALL = ("debug=fast", "data.batch_size=4", "data.eval_batch_size=4")


def test_prompt_is_continued_the_same_way_for_a_seed(train, capsys):
    run_dir = str(train("model=transformer", "model.num_layers=1", "model.width=32", *SMALL))
    capsys.readouterr()

    def text(*options):
        arguments = [run_dir, "--prompt", "The ", "--max-new-tokens", "20", *options]
        assert main(arguments) == 0
        return capsys.readouterr().out

    assert text().startswith("The ")
    assert len(text("--top-k", "1")) == len("The ") + 20 + 1
    assert text("--seed", "3") == text("--seed", "3") != text("--seed", "4")
    assert text("--temperature", "1e-40") == text("--temperature", "0")
    assert main([run_dir, "--prompt", "The " * 100, "--max-new-tokens", "1"]) == 0
    assert "the prompt has 400 tokens" in lines(capsys)[1][0]
    assert main([run_dir, "--prompt", "\a"]) == 1
    assert main([run_dir, "digit.png"]) == 1
    unknown, wrong_use = lines(capsys)[1]
    for option in ("--temperature -1", "--top-p 0", "--max-new-tokens -1"):
        assert main([run_dir, "--prompt", "The ", *option.split()]) == 1
        assert lines(capsys)[1][0].startswith(f"error: {option}")
    assert "--prompt: characters that the model has no token for: '\\x07'" in unknown
    assert "continues text: use --prompt" in wrong_use


def test_grid_of_samples(train, finished_run, tmp_path, capsys):
    extractor = f"objective.fid_extractor={finished_run}"
    run_dir = train("model=dcgan", "model.width=8", *SMALL, extractor)
    capsys.readouterr()
    file = tmp_path / "grid.png"
    assert main([str(run_dir), "--num-samples", "9", "--output", str(file)]) == 0
    with Image.open(file) as grid:
        assert grid.width == grid.height >= 3 * 28
    capsys.readouterr()
    (tmp_path / "folder.png").mkdir()
    for name in ("grid.txt", "folder.png", "nowhere/grid.png"):
        assert main([str(run_dir), "--num-samples", "2", "--output", str(tmp_path / name)]) == 1
    assert main([str(run_dir), "digit.png"]) == 1
    text_file, folder, nowhere, wrong_use = lines(capsys)[1]
    assert "grid.txt should be a file that ends in .png" in text_file
    assert folder == f"error: {tmp_path}/folder.png: Is a directory"
    assert nowhere == f"error: {tmp_path}/nowhere/grid.png: No such file or directory"
    assert "generates images: use --num-samples" in wrong_use


def replaced(file, old, new):
    file.write_text(file.read_text().replace(old, new))


SPOILED = {
    "has no checkpoint": lambda run: shutil.rmtree(run / "checkpoints"),
    "is not a run directory: it has no spec.json": lambda run: (run / "spec.json").unlink(),
    "best.pt is damaged": lambda run: (run / "checkpoints" / "best.pt").write_bytes(b"PK"),
    "the checkpoint is not of the model in config.yaml": lambda run: replaced(
        run / "config.yaml", "num_classes: null", "num_classes: 3"
    ),
    "os.system is not allowed": lambda run: replaced(
        run / "config.yaml", "models.lightcnn.LightCNN", "os.system"
    ),
}


@pytest.mark.parametrize("message", SPOILED)
def test_unusable_directory_is_one_line(message, copied_run, capsys):
    SPOILED[message](copied_run)
    assert main([str(copied_run), "--test"]) == 1
    out, err = lines(capsys)
    assert out == []
    assert len(err) == 1
    assert message in err[0]


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
def test_wrong_use_is_one_line(arguments, message, finished_run, capsys):
    assert main([str(finished_run), *arguments]) == 1
    out, err = lines(capsys)
    assert out == []
    assert len(err) == 1
    assert message in err[0]


def test_missing_directory(capsys):
    assert main(["no/such/run", "--test"]) == 1
    assert capsys.readouterr().err == "error: there is no directory no/such/run\n"
