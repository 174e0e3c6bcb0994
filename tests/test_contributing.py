"""The recipes of CONTRIBUTING.md, applied to a copy, leave the tests green."""

import json
import re

import pytest
import yaml
from helpers import ROOT, commit_all, copy_repository, run, stages_run, write_params

TEXT = (ROOT / "CONTRIBUTING.md").read_text()
# Code by the file that its first line names.
BLOCKS = dict(
    re.findall(r"```(?:python|yaml)\n# ([^\s:]+)[^\n]*\n(.*?)```", TEXT, re.S)
)
PARAMETER, STAGE = re.findall(r"```yaml\n# dvc.yaml[^\n]*\n(.*?)```", TEXT, re.S)


def insert_after(path, anchor, addition):
    text = path.read_text()
    assert anchor in text, (path, anchor)
    path.write_text(text.replace(anchor, anchor + addition, 1))


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy with another parameter, stage, dataset and layer, run and committed."""
    folder = copy_repository(tmp_path_factory.mktemp("changed"))
    package = folder / "src/core_mlp"
    train, stripes = folder / "stages/train.py", package / "sources/stripes.py"
    applied = "label_smoothing" in (folder / "params.yaml").read_text()
    if applied or stripes.exists() or (folder / "stages/size.py").exists():
        pytest.skip("a recipe has been followed to the letter")
    with (folder / "params.yaml").open("a") as file:
        file.write(BLOCKS["params.yaml"])
    insert_after(
        package / "pipeline/params.py",
        'class TrainParams(StageParams):\n    """Parameters of the train stage."""\n\n',
        BLOCKS["src/core_mlp/pipeline/params.py"],
    )
    insert_after(folder / "dvc.yaml", "    - stages/train.py\n    params:\n", PARAMETER)
    insert_after(train, " the parameters ", "label_smoothing, ")
    load = "    p = params.load_params(params.TrainParams)\n"
    insert_after(train, load, "    assert p.label_smoothing == 0.0\n")
    (folder / "stages/size.py").write_text(BLOCKS["stages/size.py"])
    insert_after(folder / "dvc.yaml", "stages:\n", STAGE)
    stripes.write_text(BLOCKS["src/core_mlp/sources/stripes.py"])
    insert_after(package / "sources/tfds.py", "import digits", ", stripes")
    with (package / "training/model.py").open("a") as file:
        file.write(f"\n\n{BLOCKS['src/core_mlp/training/model.py']}")
    live = folder / "params.yaml"
    values = yaml.safe_load(live.read_text())
    live.rename(folder / "live.yaml")
    write_params(folder, dataset="stripes", validation_size=100)
    with live.open("a") as file:
        file.write(f"label_smoothing: {values['label_smoothing']}\n")
    output = run("dvc", "repro", cwd=folder)
    assert sorted(stages_run(output)) == sorted(
        yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    )
    return folder


def test_the_pipeline_runs(changed):
    metrics = json.loads((changed / "metrics/evaluate.json").read_text())
    size = json.loads((changed / "metrics/size.json").read_text())

    assert metrics["test_accuracy"] > 0.5
    assert size["model_bytes"] > 1000
    assert "up to date" in run("dvc", "status", cwd=changed)


def test_the_contract_tests_are_green(changed):
    # The committed file, with its comments.
    (changed / "live.yaml").replace(changed / "params.yaml")
    commit_all(changed, "Change everything")
    contract = ("test_dvc_yaml.py", "test_params.py", "test_metadata.py")

    output = run(
        *("python", "-m", "pytest", "--quiet", "--numprocesses=0"),
        *(f"tests/pipeline/{name}" for name in contract),
        "tests/training/test_model.py",
        cwd=changed,
    )

    assert re.search(r"\d+ passed", output)
    assert "failed" not in output
