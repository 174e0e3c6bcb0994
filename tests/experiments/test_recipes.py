"""Recipes: sets of parameters, run as experiments."""

import pytest
import yaml
from helpers import ROOT, core_mlp, run, train_params

from core_mlp.experiments import recipes
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.params import Params
from core_mlp.reporting.runs import flatten

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_has_valid_parameters_and_leaves_the_seed_alone(path):
    values = yaml.safe_load(path.read_text())

    own = Params(dataset="mnist", validation_size=1, **train_params().model_dump())
    merged = Params(**own.model_dump() | values)

    assert merged != own
    assert not {"seed", "dataset"} & values.keys()
    assert path.read_text().startswith("# ")


def test_a_recipe_is_queued_as_an_experiment(workspace):
    recipe = {"epochs": 3, "augmentation": {"shift": 0.5, "horizontal_flip": True}}
    (workspace / "recipes/tiny.yaml").write_text(
        yaml.safe_dump(recipe | {"hidden_sizes": [5, 4], "schedule": "cosine"})
    )

    output = run("core-mlp", "recipe", "tiny", "--queue", cwd=workspace)
    status = run("dvc", "exp", "show", "--csv", cwd=workspace)
    run("dvc", "queue", "remove", "--all", cwd=workspace)

    command = output.splitlines()[0]
    assert command.startswith("dvc exp run -S augmentation.horizontal_flip=true -S ")
    assert command.endswith("-S 'hidden_sizes=[5,4]' -S schedule=cosine --queue")
    assert "[5, 4]" in status


def test_an_unknown_recipe_is_one_line():
    result = core_mlp("recipe", "mnist_fats", cwd=ROOT)

    assert result.returncode == 1
    assert result.stdout.startswith("error: no recipe 'mnist_fats'; recipes/ has ")
    assert "mnist_fast" in result.stdout
    assert len(result.stdout.splitlines()) == 1


def test_a_recipe_that_is_not_yaml_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/mine.yaml").write_text("epochs: [")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputError, match=r"^recipes/mine.yaml, line 1: not valid YAML"):
        recipes.run_recipe("mine")


def test_without_a_name_all_recipes_are_listed():
    names = core_mlp("recipe", cwd=ROOT).stdout.splitlines()

    assert {"clothing", "mnist_best", "mnist_fast"} <= set(names)


def test_groups_are_flattened():
    nested = {"a": {"b": {"c": 1}, "d": 2}, "e": [3]}

    assert flatten(nested) == {"a.b.c": 1, "a.d": 2, "e": [3]}
