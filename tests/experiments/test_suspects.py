"""Labels that are probably wrong: a stand-in for the models, and a real one."""

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, commit_all, core_mlp, run, write_params

from core_mlp.data.tfrecords import read_split, write_split
from core_mlp.experiments.suspects import run_suspects
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.metadata import SplitInfo
from core_mlp.reporting import suspects as report
from core_mlp.results import suspects as results
from core_mlp.results.suspects import HeldOut, find_kept
from core_mlp.serving import held_out

# Stands in for `python -m core_mlp.experiments.child PID CORES
# core_mlp.serving.held_out NUMBER NUM_FOLDS`: a model that is sure of the true class of
# each image, which is its index modulo 3. Labels of some images are others.
STAND_IN = f"""\
#!{sys.executable}
import os, pathlib, sys
import numpy as np
program, number, num_folds = sys.argv[5:]
assert program == "core_mlp.serving.held_out", sys.argv
notes = pathlib.Path(os.environ["STAND_INS"])
with open(notes / "folds", "a") as file:
    file.write(f"{{number}} of {{num_folds}}\\n")
if (notes / f"fails{{number}}").exists():
    sys.exit("error: training diverged")
print("Epoch 1/1: 9 images/s", flush=True)
indices = np.arange(int(number) - 1, 60, int(num_folds))
labels, classes = indices % 3, indices % 3
labels = np.where(indices == 7, 2, labels)
labels = np.where(indices == 20, 0, labels)
probabilities = np.full([len(indices), 3], 0.02, np.float32)
probabilities[np.arange(len(indices)), classes] = 0.96
probabilities[indices == 20] = [0.001, 0.001, 0.998]
names = [f"{{i}}<i>\\x1b.png" for i in indices]
if (notes / "name_of_20").exists():
    names = np.where(indices == 20, (notes / "name_of_20").read_text(), names)
images = np.broadcast_to(indices[:, None, None, None], [len(indices), 2, 3, 1])
np.savez("held_out.npz", labels=labels, probabilities=probabilities,
         names=names,
         kept=np.flatnonzero(classes != labels),
         images=images[classes != labels].astype(np.uint8),
         class_names=["a", "<b>&", "c"])
"""

pytest.importorskip("cleanlab", reason="needs cleanlab: `make setup-dev`")


@pytest.fixture
def data(project):
    """A project that has parameters."""
    write_params(project)
    (project / "dvc.yaml").write_text("stages: {}\n")
    shutil.copy(ROOT / ".gitignore", project)
    commit_all(project, "Parameters")
    return project


def folds_of(notes):
    """Returns the folds that the stand-ins were asked about, sorted."""
    path = notes / "folds"
    return sorted(path.read_text().splitlines()) if path.exists() else []


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_wrong_labels_are_listed_the_most_suspicious_first(data, capsys):
    run_suspects(3, jobs=2)

    assert rows_of(report.CSV) == [
        {
            "file": "20<i>\\x1b.png",
            "label": "a",
            "predicted": "c",
            "confidence": "0.998",
            "label_confidence": "0.001",
        },
        {
            "file": "7<i>\\x1b.png",
            "label": "c",
            "predicted": "<b>&",
            "confidence": "0.96",
            "label_confidence": "0.02",
        },
    ]
    printed = capsys.readouterr().out
    assert "2 of 60 labels are contradicted with confidence; models" in printed
    assert "predicted 96.67 % of all" in printed
    page = report.HTML.read_text("utf-8")
    assert page.count("<img") == 2
    assert page.index("20&lt;i&gt;\\x1b.png") < page.index("7&lt;i&gt;\\x1b.png")
    assert "predicted: <b>&lt;b&gt;&amp;</b>" in page
    assert "<i>" not in page
    assert "href" not in page


def test_the_page_links_to_the_picture_where_it_has_a_file(data, notes):
    write_params(data, dataset="pets")
    file = data / "data/source/pets/dogs/a #1?.png"
    file.parent.mkdir(parents=True)
    file.touch()
    commit_all(data, "Pets")
    (notes / "name_of_20").write_text("dogs/a #1?.png")

    run_suspects(3)

    page = report.HTML.read_text("utf-8")
    link = '<a href="data/source/pets/dogs/a%20%231%3F.png">dogs/a #1?.png</a>'
    assert page.count("<a ") == page.count(link) == 1


def test_each_picture_is_the_one_that_is_named(data, monkeypatch):
    shown = []
    monkeypatch.setattr(
        report, "thumbnail", lambda image: shown.append(image) or "picture"
    )

    run_suspects(3)

    assert [image.ravel().tolist() for image in shown] == [[20] * 6, [7] * 6]


def test_the_page_is_limited_and_says_so(data, monkeypatch):
    monkeypatch.setattr(report, "MAX_SHOWN", 1)

    run_suspects(3)

    page = report.HTML.read_text("utf-8")
    assert page.count("<img") == 1
    assert "the first 1; suspects.csv has all" in page
    assert len(rows_of(report.CSV)) == 2


def test_the_same_command_goes_on_where_it_was_interrupted(data, notes):
    (notes / "fails2").touch()
    with pytest.raises(InputError, match=r"^fold 2 of 3: error: training diverged; "):
        run_suspects(3)
    (notes / "fails2").unlink()
    assert folds_of(notes) == ["1 of 3", "2 of 3", "3 of 3"]
    assert not report.CSV.exists()

    run_suspects(3)

    assert folds_of(notes) == ["1 of 3", "2 of 3", "2 of 3", "3 of 3"]
    first = report.CSV.read_bytes()
    run_suspects(3)
    assert len(folds_of(notes)) == 4
    assert report.CSV.read_bytes() == first
    # Other parameters are other models.
    write_params(data, epochs=2)
    run_suspects(3)
    assert len(folds_of(notes)) == 7
    assert len(list(Path(".dvc/tmp/suspects").glob("*/"))) == 1


def test_what_is_missing_or_impossible_is_said_before_anything_runs(
    data, notes, monkeypatch
):
    result = core_mlp("suspects", "--folds", "1", cwd=data)
    assert result.returncode == 1
    assert result.stdout == "error: --folds 1: expected 2 or more\n"

    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    result = core_mlp("suspects", cwd=data)
    assert result.returncode == 1
    assert result.stdout == (
        "error: core-mlp suspects needs cleanlab: run `make setup-dev` or `pip install "
        "cleanlab`\n"
    )
    assert folds_of(notes) == []


def test_a_model_is_asked_about_images_that_it_has_not_seen(
    digits_dir, tmp_path, monkeypatch
):
    from stages import train

    folder = shutil.copytree(digits_dir, tmp_path / "digits")
    monkeypatch.chdir(folder)
    splits = [Path("data/tfrecords", split) for split in ("train", "validation")]
    infos = [SplitInfo.read_split(split) for split in splits]
    parts = [read_split(*part) for part in zip(splits, infos, strict=True)]
    for split, info, (images, labels) in zip(splits, infos, parts, strict=True):
        files = [f"{split.name}/{index}.png".encode() for index in range(len(labels))]
        shutil.rmtree(split)
        write_split(split, info, images, labels, files=np.array(files))
    monkeypatch.setattr(held_out, "make_splits", lambda: None)
    monkeypatch.setattr(held_out, "train", train.main)
    monkeypatch.setattr(sys, "argv", ["held_out", "2", "4"])

    held_out.main()

    found = HeldOut.read(Path("held_out.npz"))
    num_all = sum(len(labels) for _, labels in parts)
    assert len(found.labels) == pytest.approx(num_all / 4, abs=1)
    trained_on, _ = read_split(splits[0], SplitInfo.read_split(splits[0]))
    assert len(trained_on) == num_all - len(found.labels)
    images, labels = [], []
    for name in found.names:
        split, index = name.removesuffix(".png").split("/")
        part = parts[["train", "validation"].index(split)]
        images.append(part[0][int(index)])
        labels.append(part[1][int(index)])
    assert found.labels.tolist() == labels
    seen = {image.tobytes() for image in trained_on}
    assert not seen & {image.tobytes() for image in images}
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0, rtol=1e-5)
    wrong = found.probabilities.argmax(axis=1) != labels
    assert 0 < wrong.sum() < len(labels)
    assert len(found.kept) == min(results.MAX_SHOWN, wrong.sum())
    assert wrong[found.kept].all()
    np.testing.assert_array_equal(found.images, np.array(images)[found.kept])


@pytest.mark.parametrize(
    ("limit", "expected"), [(1, [4]), (2, [1, 4, 5]), (3, [1, 4, 5]), (9, [1, 2, 4, 5])]
)
def test_a_fold_keeps_the_pictures_that_may_be_shown(monkeypatch, limit, expected):
    monkeypatch.setattr(results, "MAX_SHOWN", limit)
    # Of the label 0; the images 0 and 3 are not contradicted.
    of_label = np.array([0.6, 0.25, 0.375, 0.9, 0.0, 0.25])
    probabilities = np.stack([of_label, 1 - of_label], axis=1)

    assert find_kept(np.zeros(6, int), probabilities).tolist() == expected


def test_a_fold_keeps_no_picture_if_its_labels_are_all_predicted():
    assert find_kept(np.array([0, 1]), np.eye(2)).tolist() == []


def test_pictures_that_were_added_to_dvc_are_there(project):
    pets = project / "data/source/pets"
    pets.mkdir(parents=True)
    (pets / "rex.png").write_text("a dog")
    (project / "dvc.yaml").write_text(
        "stages:\n"
        "  preprocess:\n"
        "    cmd: cp data/source/pets/rex.png split\n"
        "    deps: [data/source]\n"
        "    outs: [split]\n"
    )
    run("dvc", "add", "--quiet", "data/source/pets", cwd=project)
    commit_all(project, "Pets")
    shutil.rmtree(pets)  # As in a copy that Git makes.

    code = "from core_mlp.serving.held_out import make_splits; make_splits()"
    run(sys.executable, "-c", code, cwd=project)

    assert (project / "split").read_text() == "a dog"


@pytest.mark.slow
def test_wrong_labels_are_found_in_the_real_pipeline(workspace):
    result = core_mlp("suspects", "--folds", "2", "--jobs", "2", cwd=workspace)

    assert result.returncode == 0, result.stdout
    assert "fold 2 of 2: " in result.stdout
    assert rows_of(workspace / report.CSV)
    assert core_mlp("suspects", "--folds", "2", cwd=workspace).returncode == 0
