"""The recipes of CONTRIBUTING.md, applied to a copy, keep the tests green."""

import json
import re
import sys

import pytest
import yaml
from helpers import ROOT, commit_all, copy_repository, run, stages_run, write_params

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
# Code, by the comment in its first line: a file, perhaps with a place in it.
BLOCKS = dict(re.findall(r"```(?:python|yaml)\n# ([^\n]+)\n(.*?)```", TEXT, re.S))
PARAMETER = BLOCKS["dvc.yaml: under params of the stage"]
STAGE = BLOCKS["dvc.yaml: under stages"]


def insert_after(path, anchor, addition):
    text = path.read_text()
    assert anchor in text, (path, anchor)
    path.write_text(text.replace(anchor, anchor + addition, 1))


def append(path, addition):
    path.write_text(f"{path.read_text().rstrip()}\n\n\n{addition}")


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy in which every recipe has been followed, run and committed."""
    folder = copy_repository(tmp_path_factory.mktemp("changed"))
    package = folder / "src/core_mlp"
    metrics = package / "evaluation/metrics.py"
    step = package / "training/step.py"
    stripes = package / "sources/stripes.py"
    applied = "label_smoothing" in (folder / "params.yaml").read_text()
    applied = applied or "top_accuracy" in metrics.read_text()
    if applied or stripes.exists() or (folder / "stages/size.py").exists():
        pytest.skip("a recipe has been followed to the letter")

    # A parameter, and another one for the layer.
    with (folder / "params.yaml").open("a") as file:
        file.write(
            BLOCKS["params.yaml"] + "scale_inputs: false  # a factor for each pixel\n"
        )
    insert_after(
        package / "pipeline/params.py",
        'class TrainParams(StageParams):\n    """Parameters of the train stage."""\n\n',
        BLOCKS["src/core_mlp/pipeline/params.py: in the class of its stage"]
        + "    scale_inputs: bool = False\n",
    )
    insert_after(
        folder / "dvc.yaml",
        "    - stages/train.py\n    params:\n",
        f"{PARAMETER}    - scale_inputs\n",
    )
    # A loss.
    insert_after(
        step,
        "        loss = cross_entropy\n",
        BLOCKS["src/core_mlp/training/step.py: in Objective.of"],
    )
    append(step, BLOCKS["src/core_mlp/training/step.py"])
    append(
        folder / "tests/training/test_step.py", BLOCKS["tests/training/test_step.py"]
    )
    # A metric.
    insert_after(
        metrics,
        '        "test_accuracy": accuracy.value,\n',
        BLOCKS["src/core_mlp/evaluation/metrics.py: in summarize"],
    )
    append(metrics, BLOCKS["src/core_mlp/evaluation/metrics.py"])
    # A stage, a dataset and a layer.
    (folder / "stages/size.py").write_text(BLOCKS["stages/size.py"])
    insert_after(folder / "dvc.yaml", "stages:\n", STAGE)
    stripes.write_text(BLOCKS["src/core_mlp/sources/stripes.py"])
    insert_after(package / "sources/tfds.py", "import digits", ", stripes")
    model = package / "training/model.py"
    append(model, BLOCKS["src/core_mlp/training/model.py"])
    insert_after(
        model,
        "        output_sizes: Sequence[int],\n        *,\n",
        BLOCKS["src/core_mlp/training/model.py: in the arguments of MLP.__init__"],
    )
    insert_after(
        model,
        "of the products' factors, float32 or bfloat16.\n",
        BLOCKS["src/core_mlp/training/model.py: in the docstring of MLP.__init__"],
    )
    insert_after(
        model,
        "            self.layers = [*convolutions, *dense]\n",
        BLOCKS["src/core_mlp/training/model.py: at the end of MLP.__init__"],
    )
    insert_after(
        package / "pipeline/metadata.py",
        "    hidden_sizes: tuple[Size, ...]\n    class_names: ClassNames\n",
        BLOCKS["src/core_mlp/pipeline/metadata.py: in NetworkInfo"],
    )
    insert_after(
        package / "training/checkpoints.py",
        "            image_shape=network.image_shape,\n",
        BLOCKS["src/core_mlp/training/checkpoints.py: in build_model"],
    )
    tests = folder / "tests/training/test_model.py"
    append(tests, BLOCKS["tests/training/test_model.py"])
    tests.write_text(
        tests.read_text().replace("import MLP, Dense,", "import MLP, Dense, Scale,")
    )

    live = folder / "params.yaml"
    live.rename(folder / "live.yaml")
    write_params(folder, dataset="stripes", validation_size=100)
    with live.open("a") as file:
        file.write("label_smoothing: 0.1\nscale_inputs: true\n")
    output = run("dvc", "repro", cwd=folder)
    assert sorted(stages_run(output)) == sorted(
        yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    )
    return folder


def test_the_pipeline_runs(changed):
    metrics = json.loads((changed / "metrics/evaluate.json").read_text())
    size = json.loads((changed / "metrics/size.json").read_text())

    assert metrics["test_accuracy"] > 0.5
    assert metrics["test_top_2_accuracy"] > metrics["test_accuracy"]
    assert size["model_bytes"] > 1000
    network = json.loads((changed / "models/checkpoint/network.json").read_text())
    assert network["scale_inputs"] is True
    assert "up to date" in run("dvc", "status", cwd=changed)


def test_the_linter_has_no_complaint(changed):
    run("ruff", "check", "src", "stages", "tests", cwd=changed)
    run("ruff", "format", "--check", "src", "stages", "tests", cwd=changed)


def test_the_contract_tests_are_green(changed):
    # The committed file, with its comments.
    (changed / "live.yaml").replace(changed / "params.yaml")
    commit_all(changed, "Change everything")
    contract = ("test_dvc_yaml.py", "test_params.py", "test_metadata.py")

    output = run(
        *(sys.executable, "-m", "pytest", "--quiet", "--numprocesses=0"),
        *(f"tests/pipeline/{name}" for name in contract),
        *("tests/training/test_model.py", "tests/training/test_step.py"),
        "src/core_mlp/evaluation/metrics.py",
        cwd=changed,
    )

    assert re.search(r"\d+ passed", output)
    assert not re.search(r"\d failed", output)
