"""Simulates how often verdicts are wrong, however often one looks, and what they cost.

    python benchmarks/noise/decide.py

Reads default.json, the results of 40 seeds of the default parameters, and gate.yaml.
Writes decide.json, and prints the tables of docs/noise.md. Takes about four minutes.

A pair is two settings with 20 seeds each, results of `[pairs, seeds]`. The looks and
their levels are the project's own. What is computed here for all pairs at once is
compared with the project's code on some of them.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from core_mlp.reporting import gate
from core_mlp.reporting.comparison import compare
from core_mlp.reporting.runs import SEED_METRICS, Run, SeedRun, Seeds
from core_mlp.reporting.significance import (
    LOOKS,
    MAX_SEEDS,
    MIN_SEEDS,
    RESOLUTION,
    adjust_p_values,
    difference_of_means,
    last_look,
    level_of,
    summarize,
)

FOLDER = Path(__file__).parent
NUM_PAIRS = 100_000
NUM_CHECKED = 50
NUM_IMAGES = 10_000
MEAN = 0.979
VERDICTS = ("not decided", "better", "worse", "equivalent")
NOT_DECIDED, BETTER, WORSE, EQUIVALENT = range(4)


class Look(NamedTuple):
    """How many seeds of each side are compared, and the level of the interval."""

    num_old: int
    num_new: int
    level: float


def looks_of(counts: Iterable[tuple[int, int]]) -> list[Look]:
    """Returns the looks of someone who looks whenever the sides have so many seeds.

    The project compares the first seeds of both. Those that were compared before are
    left out: they give the same verdict again.
    """
    numbers = dict.fromkeys(last_look(min(sides)) for sides in counts)
    return [Look(number, number, level_of(number)) for number in numbers if number]


DECIDE = looks_of((number, number) for number in LOOKS)
EACH = range(MIN_SEEDS, MAX_SEEDS + 1)
# Whatever one does, the verdicts are those of the looks.
RULE = {
    "decide": DECIDE,
    "report after each seed": looks_of((number, number) for number in EACH),
    "20 seeds against 3 to 20": looks_of((MAX_SEEDS, number) for number in EACH),
}
# What one would do without the rule.
WITHOUT_RULE = {
    "5 % at each look": [Look(n, n, 0.05) for n in LOOKS],
    "5 % after each seed": [Look(n, n, 0.05) for n in EACH],
    "20 seeds against each look, 5 %": [Look(MAX_SEEDS, n, 0.05) for n in LOOKS],
    "20 seeds against each look, its level": [
        Look(MAX_SEEDS, n, level_of(n)) for n in LOOKS
    ],
}
NAIVE = WITHOUT_RULE["5 % at each look"]


class Pairs(NamedTuple):
    """Results of two settings, `[pairs, seeds, ...]` each."""

    old: np.ndarray
    new: np.ndarray


class Noise(NamedTuple):
    """How results vary: normally, unless it says otherwise.

    Attributes:
      sd: Standard deviation of the old side.
      ratio: Standard deviation of the new side, as a multiple of `sd`.
      skew: Skewness; if not 0, which must be negative, results are mirrored gamma
        variables.
      images: Number of test images, if accuracies are multiples of one image.
      failures: Share of seeds that fail, which costs them 10 standard deviations.
    """

    sd: float
    ratio: float = 1.0
    skew: float = 0.0
    images: int | None = None
    failures: float = 0.0

    def draw(self, difference: float = 0.0) -> Pairs:
        """Returns independent pairs; `difference` is the true one, new minus old."""
        rng = np.random.default_rng(0)
        sides = []
        for mean, sd in ((MEAN, self.sd), (MEAN + difference, self.sd * self.ratio)):
            shape = (NUM_PAIRS, MAX_SEEDS)
            if self.skew:
                a = 4 / self.skew**2
                values = mean - sd * (rng.gamma(a, size=shape) - a) / a**0.5
            else:
                values = rng.normal(mean, sd, shape)
            values -= 10 * sd * (rng.random(values.shape) < self.failures)
            if self.images:
                values = np.round(values * self.images) / self.images
            sides.append(values)
        return Pairs(*sides)


def split(results: np.ndarray, num_pairs: int = NUM_PAIRS) -> Pairs:
    """Splits 40 real results at random into two sides of 20, again and again.

    The sides of a pair share no run, but are not independent: together, they always
    have the same mean. The pairs share their runs.
    """
    rng = np.random.default_rng(0)
    order = np.tile(np.arange(len(results)), (num_pairs, 1))
    order = rng.permuted(order, axis=1)
    return Pairs(results[order[:, :MAX_SEEDS]], results[order[:, MAX_SEEDS:]])


def resample(results: np.ndarray, difference: float = 0.0) -> Pairs:
    """Draws from real results with replacement.

    All draws are independent, as if there were no other results than these.
    """
    rng = np.random.default_rng(0)
    order = rng.integers(len(results), size=(2, NUM_PAIRS, MAX_SEEDS))
    return Pairs(results[order[0]], results[order[1]] + difference)


def variance(values: np.ndarray) -> np.ndarray:
    """Computes `significance.variance` over the seeds: `[pairs, ...]`."""
    is_spread = np.ptp(values, axis=1) > RESOLUTION
    return np.where(is_spread, np.var(values, axis=1, ddof=1), 0.0)


class Differences(NamedTuple):
    """Differences of two means, with their standard error and degrees of freedom.

    All are `[pairs, ...]`.
    """

    value: np.ndarray
    error: np.ndarray
    df: np.ndarray

    def interval(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Computes `significance.Difference.interval`."""
        half_width = special.stdtrit(self.df, 1 - level / 2) * self.error
        half_width = np.where(self.error > 0, half_width, np.inf)
        return self.value - half_width, self.value + half_width

    def p_values(self) -> np.ndarray:
        """Computes `significance.Difference.p_value`."""
        error = np.where(self.error > 0, self.error, np.inf)
        return 2 * special.stdtr(self.df, -np.abs(self.value) / error)


def difference(pairs: Pairs, look: Look) -> Differences:
    """Compares the means of the first seeds, as `difference_of_means` does."""
    old, new = pairs.old[:, : look.num_old], pairs.new[:, : look.num_new]
    old_part, new_part = variance(old) / look.num_old, variance(new) / look.num_new
    total = old_part + new_part
    weights = old_part**2 / (look.num_old - 1) + new_part**2 / (look.num_new - 1)
    df = np.divide(total**2, weights, out=np.ones_like(total), where=total > 0)
    return Differences(new.mean(axis=1) - old.mean(axis=1), total**0.5, df)


def verdicts(pairs: Pairs, looks: Sequence[Look], margin: float) -> np.ndarray:
    """Returns the code of each verdict: `[looks, pairs]`."""
    codes = np.full((len(looks), len(pairs.old)), NOT_DECIDED, np.int8)
    for row, look in zip(codes, looks, strict=True):
        low, high = difference(pairs, look).interval(look.level)
        row[(low > -margin) & (high < margin)] = EQUIVALENT
        row[low > 0] = BETTER
        row[high < 0] = WORSE
    return codes


def at_decision(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first verdict that decides, and the index of its look (or the last).

    Args:
      codes: `[looks, pairs]`.
    """
    is_decided = codes != NOT_DECIDED
    index = np.where(is_decided.any(axis=0), is_decided.argmax(axis=0), len(codes) - 1)
    return codes[index, np.arange(codes.shape[1])], index


def share(condition: np.ndarray) -> float:
    return round(float(np.mean(condition)), 4)


def differs(codes: np.ndarray) -> np.ndarray:
    return (codes == BETTER) | (codes == WORSE)


def check_verdicts(pairs: Pairs, margin: float) -> None:
    """Compares verdicts with those of `comparison.compare` at each number of seeds."""
    sample = Pairs(pairs.old[:NUM_CHECKED], pairs.new[:NUM_CHECKED])
    codes = dict(zip(LOOKS, verdicts(sample, DECIDE, margin), strict=True))
    for counts in [*((n, n) for n in EACH), *((MAX_SEEDS, n) for n in EACH)]:
        expected = codes[last_look(min(counts))]
        for index, (old, new) in enumerate(zip(*sample, strict=True)):
            runs = (
                make_run(side, values[:number])
                for side, values, number in zip("ab", (old, new), counts, strict=True)
            )
            found = compare(*runs).verdict("test_accuracy", margin)
            if found != VERDICTS[expected[index]]:
                raise AssertionError(f"{found}, not {VERDICTS[expected[index]]}")


def make_run(side: str, accuracies: np.ndarray) -> Run:
    """Returns a run that has nothing but the results of its seeds."""
    results = [
        SeedRun(seed=seed, metrics={"test_accuracy": value})
        for seed, value in enumerate(accuracies, start=1)
    ]
    run = Run(
        name=side,
        params={"side": side},
        metrics=results[0].metrics | {"side": ord(side)},
        history=[],
        confusion={},
        classes=[],
        calibration=[],
        mistakes={},
        sprite=None,
        test_split="",
        seeds=None,
        inputs={},
    )
    return run._replace(seeds=Seeds(identity=run.identity, runs=results))


def errors_without_difference(kinds: dict[str, Pairs], margin: float) -> dict:
    """Returns how often two equal settings are called better or worse."""
    return {
        kind: {
            "decide": share(differs(at_decision(verdicts(pairs, DECIDE, margin))[0])),
            "at any look": share(differs(verdicts(pairs, DECIDE, 0.0)).any(axis=0)),
            "5 % at each look": share(differs(verdicts(pairs, NAIVE, 0.0)).any(axis=0)),
        }
        for kind, pairs in kinds.items()
    }


def errors_by_schedule(pairs: Pairs) -> dict:
    """Returns the same at any look, by when one looks."""
    return {
        name: {
            "looks": len(looks),
            "better or worse": share(differs(verdicts(pairs, looks, 0.0)).any(axis=0)),
        }
        for name, looks in (RULE | WITHOUT_RULE).items()
    }


def errors_at_the_margin(noise: Noise, margins: dict[str, float]) -> dict:
    """Returns how often a loss of exactly the margin is called harmless, at any look.

    It does not matter if it is a loss or a gain.
    """
    found = {}
    for name, margin in margins.items():
        pairs = noise.draw(-margin)
        codes = verdicts(pairs, DECIDE, margin)
        lows = [difference(pairs, look).interval(look.level)[0] for look in DECIDE]
        found[name] = {
            "equivalent": share((codes == EQUIVALENT).any(axis=0)),
            "better": share((codes == BETTER).any(axis=0)),
            "gate passes": share((np.array(lows) >= -margin).any(axis=0)),
        }
    return found


def misses_of_the_mean(values: np.ndarray, mean: float) -> float:
    """Returns how often an interval of one side's mean misses it, at any look.

    Args:
      values: `[pairs, seeds]`.
      mean: The true mean.
    """
    is_missed = []
    for number, level in LOOKS.items():
        part = values[:, :number]
        quantile = special.stdtrit(number - 1, 1 - level / 2)
        half_width = quantile * (variance(part) / number) ** 0.5
        is_missed.append(np.abs(part.mean(axis=1) - mean) > half_width)
        for row, miss in zip(part[:NUM_CHECKED], is_missed[-1], strict=False):
            summary = summarize(row)
            if (summary.low <= mean <= summary.high) == miss:
                raise AssertionError(f"{summary}, {mean}")
    return share(np.any(is_missed, axis=0))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Computes `significance.adjust_p_values` along the last axis."""
    order = np.argsort(p_values, axis=-1)
    steps = np.arange(p_values.shape[-1], 0, -1)
    adjusted = np.take_along_axis(p_values, order, axis=-1) * steps
    adjusted = np.minimum(np.maximum.accumulate(adjusted, axis=-1), 1.0)
    result = np.empty_like(adjusted)
    np.put_along_axis(result, order, adjusted, axis=-1)
    return result


def errors_of_families(pairs: Pairs, *, is_corrected: bool) -> dict:
    """Returns how often any of several equal means is called better or worse.

    Args:
      pairs: `[pairs, seeds, means]`.
      is_corrected: Whether by Holm's method.
    """
    worse, different = [], []
    for look in DECIDE:
        found = difference(pairs, look)
        p_values = found.p_values()
        if is_corrected:
            p_values = holm(p_values)
            for row in range(NUM_CHECKED):
                check_family(pairs, look, row, p_values[row])
        is_significant = p_values < look.level
        different.append(is_significant.any(axis=-1))
        worse.append((is_significant & (found.value < 0)).any(axis=-1))
    return {
        "one is worse": share(np.any(worse, axis=0)),
        "one is better or worse": share(np.any(different, axis=0)),
    }


def check_family(pairs: Pairs, look: Look, row: int, found: np.ndarray) -> None:
    """Compares the adjusted p-values of a pair with the project's own."""
    sides = (side[row, : look.num_old].T for side in pairs)
    known = [difference_of_means(old, new) for old, new in zip(*sides, strict=True)]
    np.testing.assert_allclose(found, adjust_p_values([d.p_value for d in known]))


def costs(sd: float, margin: float) -> dict:
    """Returns what decide costs, by the true difference in standard deviations."""
    found = {}
    numbers = np.array([*LOOKS])
    for size in (0, 0.5, 1, 1.5, 2, 3, 5, 10):
        codes = verdicts(Noise(sd).draw(size * sd), DECIDE, margin)
        decided, index = at_decision(codes)
        found[f"{size:g} sd"] = {
            "mean seeds per side": round(float(numbers[index].mean()), 1),
            "decided by look": {
                str(n): share((decided != NOT_DECIDED) & (numbers[index] <= n))
                for n in LOOKS
            },
        } | {name: share(decided == code) for code, name in enumerate(VERDICTS)}
    return found


def powers(sd: float) -> dict:
    """Returns how often a gain is found, and by a single look at 20 seeds with 5 %."""
    single = [Look(MAX_SEEDS, MAX_SEEDS, 0.05)]
    found = {}
    for size in np.arange(1, 21) / 10:
        pairs = Noise(sd).draw(size * sd)
        found[f"{size:g} sd"] = {
            name: share((verdicts(pairs, looks, 0.0) == BETTER).any(axis=0))
            for name, looks in (("at any look", DECIDE), ("single look", single))
        }
    losses = [row["single look"] - row["at any look"] for row in found.values()]
    return found | {"largest loss": round(max(losses), 4)}


def errors_of_selection(sd: float, correlation: float) -> dict:
    """Returns how often the best of several equal settings is called better.

    The best is chosen by the validation accuracy of its first seed, which then counts
    as one of its seeds.

    Args:
      sd: Standard deviation of the test accuracy.
      correlation: That of validation and test accuracy over seeds.
    """
    rng = np.random.default_rng(1)
    found = {}
    for number in (1, 5, 20):
        pairs = Noise(sd).draw()
        best = rng.normal(size=(NUM_PAIRS, number)).max(axis=1)
        other = rng.normal(size=NUM_PAIRS)
        first = correlation * best + (1 - correlation**2) ** 0.5 * other
        chosen = pairs.new.copy()
        chosen[:, 0] = MEAN + sd * first
        fresh = verdicts(pairs, DECIDE, 0.0)
        codes = verdicts(Pairs(pairs.old, chosen), DECIDE, 0.0)
        found[f"best of {number}"] = {
            "better": share((codes == BETTER).any(axis=0)),
            "better or worse": share(differs(codes).any(axis=0)),
            "better, with fresh seeds": share((fresh == BETTER).any(axis=0)),
        }
    return found


def errors_of_many_changes(noise: Noise) -> dict:
    """Returns how often one of several equal settings is called better than one base.

    Each of them is decided on, with the same results of the base.
    """
    pairs = noise.draw()
    found = {}
    for number in (5, 20):
        old = np.repeat(pairs.old[: NUM_PAIRS // number], number, axis=0)
        codes = verdicts(Pairs(old, pairs.new), DECIDE, 0.0)
        is_better = (codes == BETTER).any(axis=0).reshape(-1, number)
        found[f"{number} changes"] = share(is_better.any(axis=1))
    return found


def simulate() -> dict:
    """Returns the content of decide.json."""
    runs = Seeds.model_validate_json((FOLDER / "default.json").read_bytes()).runs
    real = {name: np.array([r.metrics[name] for r in runs]) for name in SEED_METRICS}
    metrics = np.stack(list(real.values()), axis=1)
    classes = np.array([[r.classes[name] for name in sorted(r.classes)] for r in runs])
    accuracies = real["test_accuracy"]
    sd = summarize(accuracies).sd
    skew = float(stats.skew(accuracies))
    correlation = float(np.corrcoef(real["validation_accuracy"], accuracies)[0, 1])
    margin = gate.load(None).max_accuracy_loss
    margins = {"gate.yaml": margin} | {f"{r:g} sd": r * sd for r in (0.5, 1, 2, 3, 5)}

    normal, drawn_again = Noise(sd).draw(), resample(accuracies)
    skewed = Noise(sd, skew=skew).draw()
    failing = Noise(sd, failures=0.1).draw()
    kinds = {
        "normal": normal,
        "one side varies twice as much": Noise(sd, ratio=2).draw(),
        "one side varies four times as much": Noise(sd, ratio=4).draw(),
        "skewed as the 40 runs": skewed,
        "one side skewed": Pairs(normal.old, skewed.new),
        "whole images, sd of 1": Noise(1 / NUM_IMAGES, images=NUM_IMAGES).draw(),
        "whole images, sd of 0.5": Noise(0.5 / NUM_IMAGES, images=NUM_IMAGES).draw(),
        "one seed in ten fails": failing,
        # Its other seeds are better, so that the means are equal.
        "one seed in ten fails, on one side": Pairs(normal.old, failing.new + sd),
        "40 runs, split": split(accuracies),
        "40 runs, drawn again": drawn_again,
        "40 runs, test loss, split": split(real["test_loss"]),
    }
    for pairs in kinds.values():
        check_verdicts(pairs, margin)
    rng = np.random.default_rng(0)
    shape = (2, NUM_PAIRS // 5, MAX_SEEDS, classes.shape[1])
    return {
        "levels": {str(number): level for number, level in LOOKS.items()},
        "pairs": NUM_PAIRS,
        "standard deviation": round(sd, 6),
        "skewness": round(skew, 4),
        "margin": margin,
        "no difference": errors_without_difference(kinds, margin),
        "no difference, by when one looks": errors_by_schedule(normal),
        "difference of the margin": {
            f"spread times {ratio}": errors_at_the_margin(Noise(sd, ratio), margins)
            for ratio in (1, 2, 4)
        },
        "several means": {
            "10 classes, normal": errors_of_families(
                Pairs(*rng.normal(MEAN, sd, shape)), is_corrected=True
            ),
            "10 classes, 40 runs, split": errors_of_families(
                split(classes, NUM_PAIRS // 5), is_corrected=True
            ),
            "4 metrics, 40 runs, split, not corrected": errors_of_families(
                split(metrics), is_corrected=False
            ),
        },
        "an interval of one side's mean misses": {
            "normal": misses_of_the_mean(normal.old, MEAN),
            "skewed as the 40 runs": misses_of_the_mean(skewed.old, MEAN),
            "40 runs, drawn again": misses_of_the_mean(
                drawn_again.old, float(accuracies.mean())
            ),
        },
        "cost": {
            "no margin": costs(sd, 0.0),
            "margin of gate.yaml": costs(sd, margin),
        },
        "a gain is found": powers(sd),
        "one of several changes is better": errors_of_many_changes(Noise(sd)),
        "the best of several": errors_of_selection(sd, correlation),
    }


def percent(number: float, digits: int = 0) -> str:
    return f"{100 * number:.{digits}f} %"


def tables(results: dict) -> str:
    """Returns the numbers of the tables in docs/noise.md."""
    lines = ["| true difference | seeds per side | decided |", "|---|---|---|"]
    for name, row in results["cost"]["margin of gate.yaml"].items():
        size = float(name.removesuffix(" sd"))
        points = 100 * size * results["standard deviation"]
        decided = percent(1 - row["not decided"])
        seeds = row["mean seeds per side"]
        lines.append(f"| {size:g} sd, {points:.3f} points | {seeds} | {decided} |")
    lines += ["", "| equal settings | at any look | 95 % intervals |", "|---|---|---|"]
    for name, row in results["no difference"].items():
        ours, naive = percent(row["at any look"], 1), percent(row["5 % at each look"])
        lines.append(f"| {name} | {ours} | {naive} |")
    return "\n".join(lines)


def main() -> None:
    results = simulate()
    text = json.dumps(results, indent=2)
    (FOLDER / "decide.json").write_text(f"{text}\n", encoding="utf-8")
    print(tables(results))


if __name__ == "__main__":
    main()
