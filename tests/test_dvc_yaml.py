"""dvc.yaml tells the truth about the stages."""

import ast
import importlib
import json
import re
from pathlib import Path

import pytest
import yaml

from core_mlp import params

ROOT = Path(__file__).parent.parent
DVC_YAML = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES = DVC_YAML["stages"]


def outs_of(stage):
    """Yields each output of a stage with its flags."""
    for out in STAGES[stage]["outs"]:
        yield next(iter(out.items())) if isinstance(out, dict) else (out, {})


def first_party_files(module, seen=None):
    """Returns the files of a module and of all first-party modules that it imports."""
    seen = set() if seen is None else seen
    base = ROOT / ("stages" if module.split(".")[0] == "stages" else "src/core_mlp")
    path = base.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.exists() or path in seen:
        return seen
    seen.add(path)
    first_party_files(module.split(".")[0], seen)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] in ("core_mlp", "stages"):
                first_party_files(name, seen)
    return seen


def test_the_stages_are_those_in_the_folder():
    files = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}

    assert set(STAGES) == files


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_deps_are_the_modules_that_are_imported(stage):
    deps = {dep for dep in STAGES[stage]["deps"] if dep.endswith(".py")}
    files = first_party_files(f"stages.{stage}")

    assert deps == {str(path.relative_to(ROOT)) for path in files}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_the_params_that_it_reads(stage):
    source = (ROOT / f"stages/{stage}.py").read_text()
    read = set()
    for name in re.findall(r"load_params\(params\.(\w+)\)", source):
        read |= set(getattr(params, name).model_fields)

    assert set(STAGES[stage].get("params", [])) == read


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_uses_every_param_that_it_reads(stage):
    source = (ROOT / f"stages/{stage}.py").read_text()

    for key in STAGES[stage].get("params", []):
        assert re.search(rf"\.{key}\b", source), key


def test_every_param_is_read_by_one_stage():
    keys = [key for stage in STAGES.values() for key in stage.get("params", [])]

    assert sorted(keys) == sorted(yaml.safe_load((ROOT / "params.yaml").read_text()))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_docstring_lists_what_dvc_yaml_lists(stage):
    docstring = importlib.import_module(f"stages.{stage}").__doc__
    reads, writes = re.search(
        r"Reads\s(.*)\.\sWrites\s(.*)\.", docstring, re.S
    ).groups()

    for key in STAGES[stage].get("params", []):
        assert re.search(rf"\b{key}\b", reads), key
    for dep in STAGES[stage]["deps"]:
        assert dep.endswith(".py") or f"{dep}/" in reads, dep
    for out, _ in outs_of(stage):
        name = Path(out).name if out.startswith("plots/") else out
        assert re.search(rf"(^|\s){re.escape(name)}\b", writes), out


def test_data_and_models_are_cached_and_metrics_and_plots_are_in_git():
    for stage in STAGES:
        for out, flags in outs_of(stage):
            if out.startswith(("data/", "models/")):
                assert flags == {}, out
                assert (
                    f"/{Path(out).name}"
                    in ((ROOT / out).parent / ".gitignore").read_text().split()
                )
            else:
                assert flags == {"cache": False}, out


def test_every_metric_and_plot_is_an_output():
    outs = {out for stage in STAGES for out, _ in outs_of(stage)}
    shown = set(DVC_YAML["metrics"])
    for plot in DVC_YAML["plots"]:
        if isinstance(plot, str):
            shown.add(plot)
        else:
            (spec,) = plot.values()
            shown |= set(spec["y"])

    # What the comparison of two models needs; there is no plot of it.
    assert shown | {"plots/mistakes.csv", "metrics/test_split.json"} == {
        out for out in outs if out.startswith(("metrics/", "plots/"))
    }


def test_every_plot_has_a_title_labels_a_template_and_its_columns():
    for plot in DVC_YAML["plots"]:
        if isinstance(plot, str):
            continue
        (spec,) = plot.values()
        assert {"title", "x", "x_label", "y", "y_label"} <= set(spec)
        ((path, columns),) = spec["y"].items()
        header = (ROOT / path).read_text().splitlines()[0].split(",")
        columns = columns if isinstance(columns, list) else [columns]
        assert {spec["x"], *columns} <= set(header), plot
        if spec.get("template", "simple") != "simple":  # That is one of DVC's own.
            template = ROOT / ".dvc/plots" / f"{spec['template']}.json"
            used = set(re.findall(r"datum\.(\w+)", template.read_text()))
            derived = set(re.findall(r'"as": "(\w+)"', template.read_text()))
            assert used <= set(header) | derived, plot
            assert "<DVC_METRIC_DATA>" in json.dumps(json.loads(template.read_text()))


def test_the_keys_of_metrics_and_params_are_unique():
    """Otherwise `dvc exp show` puts the file's name before them."""
    keys = list(yaml.safe_load((ROOT / "params.yaml").read_text()))
    for path in DVC_YAML["metrics"]:
        keys += json.loads((ROOT / path).read_text())

    assert len(keys) == len(set(keys)), keys
