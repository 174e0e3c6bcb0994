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


def replace(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy with another parameter, stage, dataset and layer, run and committed."""
    folder = copy_repository(tmp_path_factory.mktemp("changed"))
    package = folder / "src/core_mlp"
    with (folder / "params.yaml").open("a") as file:
        file.write(BLOCKS["params.yaml"])
    replace(
        package / "pipeline/params.py",
        "    memory_budget:",
        BLOCKS["src/core_mlp/pipeline/params.py"] + "    memory_budget:",
    )
    replace(folder / "dvc.yaml", "    - seed\n", f"    - seed\n{PARAMETER}")
    train = folder / "stages/train.py"
    docstring = "precision,\nmemory_budget"
    replace(train, docstring, docstring.replace(",", ", weight_decay,"))
    device = "    device = loop.set_up_device()\n"
    replace(train, device, f"    assert p.weight_decay == 0.0\n{device}")
    (folder / "stages/size.py").write_text(BLOCKS["stages/size.py"])
    replace(folder / "dvc.yaml", "artifacts:", f"{STAGE}artifacts:")
    stripes = "src/core_mlp/sources/stripes.py"
    (folder / stripes).write_text(BLOCKS[stripes])
    replace(package / "sources/tfds.py", "import digits ", "import digits, stripes ")
    with (package / "training/model.py").open("a") as file:
        file.write(f"\n\n{BLOCKS['src/core_mlp/training/model.py']}")
    live = folder / "params.yaml"
    values = yaml.safe_load(live.read_text())
    live.rename(folder / "live.yaml")
    write_params(folder, dataset="stripes", validation_size=100)
    with live.open("a") as file:
        file.write(f"weight_decay: {values['weight_decay']}\n")
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
