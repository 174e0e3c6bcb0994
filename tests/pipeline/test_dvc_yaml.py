"""dvc.yaml tells the truth about the stages."""

import ast
import importlib
import json
import re
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

from core_mlp.pipeline import params
from core_mlp.results.seeds import SeedResult

TEXT = (ROOT / "dvc.yaml").read_text()
# A variable decides which lock is a dependency: see docs/scaling.md on GPUs.
CONTENT = yaml.safe_load(TEXT.replace("${requirements}", "requirements.lock"))
STAGES = CONTENT["stages"]
# Those that no stage writes.
PLOTS = {path: options for plot in CONTENT["plots"] for path, options in plot.items()}
CODE = ("src/", "stages/")


def outs_of(stage):
    """Yields kind, path and options of each output of a stage."""
    for kind in ("outs", "metrics", "plots"):
        for out in STAGES[stage].get(kind, []):
            options = out if isinstance(out, dict) else {out: {}}
            yield kind, *next(iter(options.items()))


def charts():
    """Yields path and options of each CSV that DVC draws."""
    for stage in STAGES:
        for kind, path, options in outs_of(stage):
            if kind == "plots" and path.endswith(".csv"):
                yield path, options
    yield from PLOTS.items()


def marks_of(spec):
    """Yields each mark of a Vega-Lite template, with its encoding."""
    for part in (*spec.get("layer", []), *filter(None, [spec.get("spec")])):
        yield from marks_of(part)
    if "mark" in spec:
        mark = spec["mark"]
        yield mark if isinstance(mark, dict) else {"type": mark}, spec["encoding"]


def code_deps(stage):
    return [dep for dep in STAGES[stage]["deps"] if dep.startswith(CODE)]


def covers(dep, path):
    return path == dep or path.startswith(f"{dep}/")


def imported_files(module, seen=None):
    """Returns the files of a module and of all first-party modules that it imports."""
    seen = set() if seen is None else seen
    base = ROOT / ("stages" if module.split(".")[0] == "stages" else "src/core_mlp")
    path = base.joinpath(*module.split(".")[1:])
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not path.exists() or path in seen:
        return seen
    seen.add(path)
    if "." in module:
        imported_files(module.rpartition(".")[0], seen)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] in ("core_mlp", "stages"):
                imported_files(name, seen)
    return seen


def is_docstring_only(path):
    body = ast.parse(path.read_text()).body
    return all(isinstance(node, ast.Expr) for node in body)


def test_the_stages_are_those_in_the_folder():
    files = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__"}

    assert set(STAGES) == files


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_replaces_its_shell(stage):
    """A shell that stays alive would leave the stage running when DVC is killed."""
    assert STAGES[stage]["cmd"] == f"exec python -m stages.{stage}"


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_deps_are_what_the_stage_imports(stage):
    files = {
        str(path.relative_to(ROOT))
        for path in imported_files(f"stages.{stage}")
        if not is_docstring_only(path)
    }
    deps = code_deps(stage)

    assert {f for f in files if not any(covers(dep, f) for dep in deps)} == set()
    assert {dep for dep in deps if not any(covers(dep, f) for f in files)} == set()


@pytest.mark.parametrize(
    ("edited", "stages"),
    [
        ("stages/train.py", {"train"}),
        # A decoder, a source, a layout of folders.
        ("src/core_mlp/sources/image_files.py", {"fetch"}),
        ("src/core_mlp/sources/tfds.py", {"fetch"}),
        ("src/core_mlp/sources/digits.py", {"fetch"}),
        ("src/core_mlp/sources/folders.py", {"fetch"}),
        ("src/core_mlp/data/arrays.py", {"fetch", "preprocess"}),
        ("src/core_mlp/data/borders.py", {"fetch", "preprocess"}),
        # The split policy, and the problems of a dataset.
        ("src/core_mlp/data/splits.py", {"preprocess"}),
        ("src/core_mlp/data/soundness.py", {"preprocess"}),
        ("src/core_mlp/data/tfrecords.py", {"preprocess", "train", "evaluate"}),
        ("src/core_mlp/data/images.py", {"train", "export", "evaluate"}),
        ("src/core_mlp/training/model.py", {"train", "export"}),
        ("src/core_mlp/training/checkpoints.py", {"train", "export"}),
        # The loss and the optimizer.
        ("src/core_mlp/training/step.py", {"train"}),
        ("src/core_mlp/training/optimizers.py", {"train"}),
        ("src/core_mlp/training/loop.py", {"train"}),
        ("src/core_mlp/training/augmentation.py", {"train"}),
        ("src/core_mlp/distributed/connection.py", {"train"}),
        ("src/core_mlp/distributed/replicas.py", {"train"}),
        ("src/core_mlp/distributed/local.py", set()),
        ("src/core_mlp/serving/saved_model.py", {"export", "evaluate"}),
        ("src/core_mlp/serving/litert.py", {"export", "evaluate"}),
        ("src/core_mlp/serving/answers.py", {"export", "evaluate"}),
        ("src/core_mlp/training/convolution.py", {"train", "export"}),
        ("src/core_mlp/serving/predict.py", set()),
        ("src/core_mlp/serving/drawings.py", set()),
        ("src/core_mlp/serving/demo.py", set()),
        # A metric, and a picture.
        ("src/core_mlp/evaluation/metrics.py", {"evaluate"}),
        ("src/core_mlp/evaluation/plots.py", {"preprocess", "evaluate"}),
        ("src/core_mlp/data/sprites.py", {"train", "evaluate"}),
        ("src/core_mlp/results/preprocess.py", {"preprocess"}),
        ("src/core_mlp/results/train.py", {"train"}),
        ("src/core_mlp/evaluation/mistakes.py", {"evaluate"}),
        ("src/core_mlp/results/evaluate.py", {"evaluate"}),
        ("src/core_mlp/reporting/significance.py", set()),
        ("src/core_mlp/reporting/report.py", set()),
        ("src/core_mlp/reporting/templates/verdict.txt", set()),
        ("src/core_mlp/reporting/gate.py", set()),
        ("src/core_mlp/experiments/seeds.py", set()),
        # Folds, and what a model says about one.
        ("src/core_mlp/data/folds.py", set()),
        ("src/core_mlp/serving/held_out.py", set()),
        ("src/core_mlp/results/suspects.py", set()),
        ("src/core_mlp/cli.py", set()),
        ("src/core_mlp/pipeline/params.py", set(STAGES)),
        ("stages/__init__.py", set(STAGES)),
        ("requirements.lock", set(STAGES)),
        ("requirements-dev.lock", set()),
        ("requirements-gpu.lock", set()),
        ("gate.yaml", set()),
        (".dvc/plots/history.json", set()),
        ("tests/helpers.py", set()),
    ],
)
def test_an_edit_runs_these_stages(edited, stages):
    """Further stages run only if the output of one of these changes."""
    assert (ROOT / edited).exists()
    known = {"fetch", "preprocess", "train", "export", "evaluate"}
    found = {s for s in STAGES if any(covers(dep, edited) for dep in STAGES[s]["deps"])}

    assert found & known == stages & known


@pytest.mark.parametrize(
    ("param", "stages"),
    [
        ("dataset", {"fetch"}),
        ("validation_size", {"preprocess"}),
        ("augmentation", {"train"}),
        ("epochs", {"train"}),
        ("quantize", {"export"}),
    ],
)
def test_a_param_runs_these_stages(param, stages):
    """Further stages run only if the output of one of these changes."""
    assert {s for s in STAGES if param in STAGES[s].get("params", [])} == stages


@pytest.mark.parametrize(
    "module", ["pipeline", "results", "evaluation", "reporting", "experiments"]
)
def test_what_needs_no_tensorflow_imports_none(module):
    for path in (ROOT / "src/core_mlp" / module).glob("*.py"):
        files = imported_files(f"core_mlp.{module}.{path.stem}")
        for file in files:
            top_level = ast.parse(file.read_text()).body
            assert "tensorflow" not in {
                alias.name
                for node in top_level
                if isinstance(node, ast.Import)
                for alias in node.names
            }, file


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_the_params_that_it_reads(stage):
    source = (ROOT / f"stages/{stage}.py").read_text()
    read = set()
    for name in re.findall(r"load_params\(params\.(\w+)\)", source):
        read |= set(getattr(params, name).model_fields)

    listed = STAGES[stage].get("params", [])
    assert {key.split(".")[0] for key in listed} == read
    # Each is used by the stage itself, or by the library that it passes all of them to.
    library = (ROOT / "src/core_mlp/training").glob("*.py")
    source += "".join(path.read_text() for path in library)
    for key in read:
        assert re.search(rf"\.{key}\b", source), f"{key} is not used"


def test_every_param_is_read_by_a_stage():
    keys = [key for stage in STAGES.values() for key in stage.get("params", [])]

    assert sorted(set(keys)) == sorted(
        yaml.safe_load((ROOT / "params.yaml").read_text())
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_docstring_lists_what_dvc_yaml_lists(stage):
    docstring = importlib.import_module(f"stages.{stage}").__doc__
    summary, description = docstring.split("\n", maxsplit=1)

    assert summary == f"{STAGES[stage]['desc']}."
    names = [*STAGES[stage]["deps"], *(path for _, path, _ in outs_of(stage))]
    if "params" in STAGES[stage]:
        assert "its parameters" in " ".join(description.split())
    for name in set(names) - {*code_deps(stage), "requirements.lock"}:
        assert re.search(rf"(^|\s){re.escape(name)}\b", description), name


def test_data_and_models_are_cached_and_metrics_and_plots_are_in_git():
    for stage in STAGES:
        for kind, path, options in outs_of(stage):
            folder = path.split("/")[0]
            if kind == "outs":
                assert options == {}, path
                assert folder in ("data", "models")
                ignored = (ROOT / folder / ".gitignore").read_text().split()
                assert f"/{path.split('/')[1]}" in ignored
            else:
                # Declared as a metric or plot, it leaves DVC's run cache on.
                assert folder == kind, path
                assert options["cache"] is False, path


def test_every_csv_has_a_title_a_template_and_its_columns():
    for path, options in charts():
        assert options["title"]
        header = SeedResult._fields
        if path not in PLOTS:  # These may be missing.
            header = (ROOT / path).read_text().splitlines()[0].split(",")
        assert {options["x"], options.get("y", header[0])} <= set(header), path
        template = (ROOT / f".dvc/plots/{options['template']}.json").read_text()
        used = set(re.findall(r"datum\.(\w+)", template))
        derived = set(re.findall(r'"as": "(\w+)"', template))
        derived |= set(re.findall(r'"(\w+)"', "".join(
            re.findall(r'"as": \[(.*?)\]', template)
        )))  # fmt: skip
        assert used <= set(header) | derived | {"rev", "label", "value"}, path
        assert "<DVC_METRIC_DATA>" in json.dumps(json.loads(template))


def test_each_chart_is_declared_once():
    paths = [path for path, _ in charts()]

    assert len(paths) == len(set(paths))
    assert set(PLOTS) == {"plots/seeds.csv"}


def test_text_and_lines_of_a_chart_have_the_color_of_the_page():
    """Vega's own is black, which cannot be seen on a dark page."""
    for _, options in charts():
        template = (ROOT / f".dvc/plots/{options['template']}.json").read_text()
        for mark, encoding in marks_of(json.loads(template)):
            colors = str([mark.get("color"), encoding.get("color")])
            is_readable = "currentColor" in colors or "#888" in colors
            assert mark["type"] not in ("text", "rule") or is_readable


def test_the_keys_of_metrics_and_params_are_unique():
    """Otherwise `dvc exp show` prefixes them with the file's name."""
    keys = list(yaml.safe_load((ROOT / "params.yaml").read_text()))
    for stage in STAGES:
        for kind, path, _ in outs_of(stage):
            if kind == "metrics":
                keys += json.loads((ROOT / path).read_text())

    assert len(keys) == len(set(keys)), keys


def test_the_model_is_an_artifact():
    (artifact,) = yaml.safe_load(TEXT)["artifacts"].values()

    assert artifact["type"] == "model"
    assert artifact["path"] in [path for _, path, _ in outs_of("export")]
    assert Path(artifact["path"]).name == "saved_model"
