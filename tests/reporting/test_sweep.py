"""The ranking of experiments."""

import json
import re

import numpy as np
import pytest
from helpers import commit_all, run
from made_up import discard_changes, report

from core_mlp.reporting import sweep
from core_mlp.reporting.runs import Seeds


@pytest.mark.usefixtures("fabricated")
def test_experiments_are_ranked_by_validation(clone):
    run("git", "checkout", "--quiet", "-B", "resized", "main", cwd=clone)
    text = (clone / "params.yaml").read_text()
    resized = text.replace("image_size:\n", "image_size: [8, 8]\n")
    (clone / "params.yaml").write_text(resized)
    text = (clone / "dvc.lock").read_text()
    assert "image_size:\n" in text
    resized = text.replace("image_size:\n", "image_size: [8, 8]\n")
    (clone / "dvc.lock").write_text(resized)
    for path, key, value in (
        ("metrics/train.json", "validation_accuracy", 0.9987),
        ("metrics/evaluate.json", "test_accuracy", 0.1234),
    ):
        metrics = json.loads((clone / path).read_text()) | {key: value}
        (clone / path).write_text(json.dumps(metrics))
    commit_all(clone, "Resized")
    run("git", "checkout", "--quiet", "main", cwd=clone)
    main = run("git", "rev-parse", "main", cwd=clone).strip()
    run("git", "checkout", "--quiet", "-B", "other-images", "resized", cwd=clone)
    for name in ("params.yaml", "dvc.lock"):
        text = (clone / name).read_text().replace("sklearn_digits", "other")
        # The hash of the test split.
        text = re.sub(r"(tfrecords/test\n +hash: md5\n +md5: )\w+", r"\g<1>0", text)
        (clone / name).write_text(text)
    commit_all(clone, "Other images")
    run("git", "checkout", "--quiet", "main", cwd=clone)
    for name in ("longer", "resized", "other-images"):
        ref = f"refs/exps/{main[:2]}/{main[2:]}/{name}-run"
        run("git", "update-ref", ref, name, cwd=clone)

    result = report(clone, "--experiments")

    assert result.returncode == 0, result.stdout
    best = "\nBest by validation on {}: {}\nThe best of {} by"
    number = "3 settings (HEAD, the commit, is one)"
    assert best.format("sklearn_digits", "resized-run", number) in result.stdout
    assert best.format("other", "other-images-run", "1 setting") in result.stdout
    text = (clone / "report.md").read_text()
    rows = re.findall(r"(?m)^\| (\S+) \| (\d) \| ([\d.]+) \| ([\d.]+) \|(.*)", text)
    ranked = ["resized-run", "longer-run", "HEAD"]
    assert sorted(row[0] for row in rows) == sorted([*ranked, "other-images-run"])
    rows = [row for row in rows if row[0] != "other-images-run"]
    assert [row[0] for row in rows] == ranked
    assert rows[0][2:4] == ("0.9987", "0.1234")
    assert [row[4].split(" | ")[0] for row in rows] == [" \\[8, 8\\]", " null", " null"]
    validation = [float(row[2]) for row in rows]
    assert validation == sorted(validation, reverse=True)
    # A picture for each parameter that varies, even where it is null in one run.
    assert (clone / "report.html").read_text().count("data:image/png") == 2
    discard_changes(clone)


def test_equally_accurate_settings_are_ranked_by_loss(good_run):
    accuracies_and_losses = (0.97, 0.1), (0.98, 0.3), (0.98, 0.2)
    settings = [
        [
            good_run._replace(
                metrics={"validation_accuracy": accuracy, "validation_loss": loss}
            )
        ]
        for accuracy, loss in accuracies_and_losses
    ]

    ranked = sorted(settings, key=sweep.by_validation)

    assert ranked == [settings[2], settings[1], settings[0]]


def test_the_best_of_several_is_too_high_by_chance(good_run):
    rng = np.random.default_rng(0)
    runs = [
        {"seed": seed, "metrics": {"validation_accuracy": accuracy}}
        for seed, accuracy in enumerate(rng.normal(0.98, 0.002, 20))
    ]
    seeded = good_run._replace(seeds=Seeds(identity=good_run.identity, runs=runs))
    sd = np.std([row["metrics"]["validation_accuracy"] for row in runs], ddof=1)

    text = sweep.describe_selection([[good_run]] * 7 + [[seeded]])

    expected = 100 * sd * rng.normal(size=[100_000, 8]).max(axis=1).mean()
    bias = float(re.search(r"by ([\d.]+) points on average", text)[1])
    assert bias == pytest.approx(expected, abs=0.01)
