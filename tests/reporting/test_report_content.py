"""What a report says about two made-up runs."""

import pytest
from made_up import RULES

from core_mlp.reporting.model_card import render_card
from core_mlp.reporting.report import make_report, render_report
from core_mlp.reporting.runs import Seeds
from core_mlp.reporting.significance import LOOKS
from core_mlp.results.evaluate import ClassAccuracy, Mistake


def test_the_report_shows_what_broke_what_was_fixed_and_which_confusions_grew(good_run):
    (first, mistake), *others = good_run.mistakes.items()
    broken = Mistake(7777, "5", "3", 0.625)
    base = good_run._replace(
        name="old_one", metrics=good_run.metrics | {"test_loss": 9}
    )
    head = good_run._replace(
        name="new",
        mistakes=dict(others) | {7777: broken},
        confusion=good_run.confusion | {("5", "3"): 1, ("0", "1"): 19},
    )

    found = make_report(base, head, RULES)
    comparison, text = found.comparison, render_report(found)

    assert (comparison.fixed, comparison.broken) == ([first], [7777])
    _, confusions, broken_images, fixed_images = text.split("<details>")
    assert "| 5 as 3 | 0 | 1 | +1 |\n" in confusions
    assert "| 0 as 1 | 20 | 19 | -1 |\n" in confusions
    assert "Newly broken images (1 of 1)" in broken_images
    assert "| 7777 | 5 | 5 | 3 | 0.6250 |" in broken_images
    assert (
        "| prediction, old\\_one | prediction, new | confidence, new |" in broken_images
    )
    assert "Newly fixed images (1 of 1)" in fixed_images
    assert f"| {first} | 0 | 1 | 0 | 0.7500 |" in fixed_images
    assert "confidence, old\\_one" in fixed_images
    assert (mistake.label, mistake.predicted) == ("0", "1")


def test_report_and_model_card_name_the_file_of_a_mistake(good_run):
    others = dict(list(good_run.mistakes.items())[1:])
    file = "dogs/<b>|*\n.png"
    mistake = Mistake(7777, "5", "3", 0.99, file)
    params = {"hidden_sizes": [], "conv_filters": [], "validation_size": 9}
    head = good_run._replace(
        params=good_run.params | params, mistakes={7777: mistake} | others
    )

    text = render_report(make_report(good_run, head, RULES))

    shown = r"| 7777: dogs/\<b\>\|\* .png | 5 |"
    assert shown in text
    assert shown in render_card(head)


def test_the_report_names_code_and_data_that_changed(good_run):
    """A label that was corrected is no change of a parameter."""
    inputs = {"data/tfrecords/train": "1", "src/loop_1.py": "2", "src/old.py": "3"}
    changes = {"data/tfrecords/train": "4", "src/loop_1.py": "2", "src/new.py": "5"}
    base = good_run._replace(inputs=inputs)
    head = good_run._replace(
        inputs=changes, metrics=good_run.metrics | {"test_loss": 9}
    )

    text = render_report(make_report(base, head, RULES))

    assert (
        "### Parameters\n\nNo changes.\n\n### Code and data\n\n"
        "Changed: data/tfrecords/train, src/new.py, src/old.py\n"
    ) in text
    same = head._replace(inputs=inputs)
    assert "### Code and data" not in render_report(make_report(base, same, RULES))


@pytest.mark.parametrize(("sign", "word"), [(1, "better"), (-1, "worse")])
def test_a_class_says_better_where_head_is_better(good_run, sign, word):
    sides = []
    for epochs, shift in ((1, 0.0), (2, 0.05 * sign)):
        run_ = good_run._replace(
            params={"epochs": epochs},
            metrics=good_run.metrics | {"test_loss": float(epochs)},
            classes=[ClassAccuracy("3", 0.5, 0.5, 149, 0.4, 0.6)],
        )
        results = [
            {
                "seed": seed,
                "metrics": {"test_accuracy": 0.5 + seed / 1000 + shift},
                "classes": {"3": 0.5 + seed / 1000 + shift},
            }
            for seed in range(5)
        ]
        sides.append(run_._replace(seeds=Seeds(identity=run_.identity, runs=results)))

    found = make_report(*sides, RULES)
    text = render_report(found)

    assert found.verdict.title == f"good → good: {word}"
    new = 0.502 + 0.05 * sign
    change = f"{0.05 * sign:+.4f} {'↑' if sign > 0 else '↓'} {word}"
    assert f"| 3 | 149 | 0.5020 ± 0.0016 | {new:.4f} ± 0.0016 | {change} |" in text
    assert (
        f"| test\\_accuracy | 0.5020 ± 0.0016 | {new:.4f} ± 0.0016 | {change} |" in text
    )


def test_the_report_on_100_classes_fits_into_a_comment(good_run):
    names = [f"a rather long name of a class, number {n}" for n in range(100)]
    confusion = {(a, b): 50 if a == b else 1 for a in names for b in names}
    sides = []
    for epochs, shift in ((1, 0), (2, 5000)):
        run_ = good_run._replace(
            name="a-branch-with-a-long-name",
            params={"epochs": epochs},
            confusion=confusion,
            classes=[ClassAccuracy(name, 0.5, 0.5, 149, 0.4, 0.6) for name in names],
            mistakes={
                n + shift: Mistake(n + shift, names[0], names[1], 0.5)
                for n in range(99)
            },
        )
        results = [
            {
                "seed": seed,
                "metrics": {"test_accuracy": 0.5 + seed / 100},
                "classes": dict.fromkeys(names, 0.5 + seed / 100),
            }
            for seed in range(5)
        ]
        sides.append(run_._replace(seeds=Seeds(identity=run_.identity, runs=results)))

    text = render_report(make_report(*sides, RULES, edits="edits"))

    assert text.count(names[99]) == 1
    assert len(text) < 65_536


@pytest.mark.parametrize(
    ("metric", "better"), [("test_accuracy", True), ("test_loss", False)]
)
def test_a_lower_loss_is_better(good_run, metric, better):
    sides = []
    for epochs, shift in ((1, 0.0), (2, 0.1)):
        run_ = good_run._replace(
            params={"epochs": epochs}, metrics=good_run.metrics | {"test_loss": epochs}
        )
        results = [
            {
                "seed": seed,
                "metrics": dict.fromkeys(
                    ["test_accuracy", "test_loss"], 0.5 + seed / 1000 + shift
                ),
            }
            for seed in range(5)
        ]
        sides.append(run_._replace(seeds=Seeds(identity=run_.identity, runs=results)))

    found = make_report(*sides, RULES, metric=metric)

    assert found.word == ("better" if better else "worse")
    unit = " points" if metric == "test_accuracy" else ""
    size = "+10.00" if metric == "test_accuracy" else "+0.1000"
    name = metric.replace("_", " ").capitalize()
    assert found.verdict.finding.startswith(f"{name} changed by {size}{unit}, from ")
    assert name.lower() in found.verdict.lines[2] or better


def test_the_first_seeds_of_both_sides_are_compared_whatever_their_number(good_run):
    """More of one side would make the verdict wrong too often."""
    sides = []
    for epochs, number in ((1, 20), (2, 7)):
        run_ = good_run._replace(
            params={"epochs": epochs}, metrics=good_run.metrics | {"test_loss": epochs}
        )
        results = [
            {"seed": seed, "metrics": {"test_accuracy": 0.5 + seed / 1000 + epochs}}
            for seed in reversed(range(number))
        ]
        sides.append(run_._replace(seeds=Seeds(identity=run_.identity, runs=results)))

    found = make_report(*sides, RULES).comparison

    assert [r.seed for r in found.base_results] == [0, 1, 2, 3, 4]
    assert [r.seed for r in found.head_results] == [0, 1, 2, 3, 4]
    assert found.metrics["test_accuracy"].level == LOOKS[5]
