"""Several seeds of the same settings."""

import json

import pytest
from helpers import commit_all, core_mlp, run

from core_mlp.reporting.runs import read_run


def test_results_of_more_seeds_are_not_replaced_by_fewer(workspace):
    runs = [{"seed": seed, "metrics": {"test_accuracy": 0.5}} for seed in range(6)]
    path = workspace / "metrics/seeds.json"
    path.write_text(json.dumps({"identity": "of any settings", "runs": runs}))
    before = path.read_bytes()

    result = core_mlp("seeds", "5", cwd=workspace)

    assert result.returncode == 1
    assert result.stdout == (
        "error: metrics/seeds.json has the results of 6 seeds: to replace them with "
        "those of 5, add --replace\n"
    )
    assert path.read_bytes() == before
    path.write_text("{}")
    result = core_mlp("seeds", "5", cwd=workspace)
    assert result.returncode == 1
    assert result.stdout.startswith("error: metrics/seeds.json: corrupt: identity: ")


@pytest.mark.slow
def test_seeds_are_run_and_summarized(workspace, monkeypatch):
    run("core-mlp", "seeds", "5", cwd=workspace)

    seeds = json.loads((workspace / "metrics/seeds.json").read_text())
    assert [row["seed"] for row in seeds["runs"]] == [1, 2, 3, 4, 5]
    accuracies = [row["metrics"]["test_accuracy"] for row in seeds["runs"]]
    assert len(set(accuracies)) > 1
    assert seeds["summary"]["test_accuracy"]["mean"] == pytest.approx(
        sum(accuracies) / 5, abs=1e-6
    )
    assert seeds["runs"][0]["classes"].keys() == {str(digit) for digit in range(10)}
    monkeypatch.chdir(workspace)
    assert len(read_run(None).results) == 5
    assert run("git", "diff", "--", "params.yaml", cwd=workspace) == ""
    # Again, with experiments that start with these results.
    commit_all(workspace, "Seeds")
    run("core-mlp", "seeds", "5", cwd=workspace)
    assert json.loads((workspace / "metrics/seeds.json").read_text()) == seeds
