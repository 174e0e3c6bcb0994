"""The charts of a search."""

from itertools import pairwise

import numpy as np
import pytest

from core_mlp.reporting import search


@pytest.mark.parametrize(
    ("low", "high"), [(3e-4, 3e-3), (9e-4, 2.2e-3), (1e-4, 1e-2), (1e-5, 1e-1)]
)
def test_labels_of_a_logarithmic_axis_are_readable(monkeypatch, low, high):
    trials = [
        search.TrialResult(
            trial=number,
            outcome="finished",
            epochs=1,
            accuracy=0.5,
            loss=0.5,
            settings={"learning_rate": f"{value:.3g}"},
        )
        for number, value in enumerate(np.geomspace(low, high, 9))
    ]
    result = search.SearchResult("digits", "", trials, {}, {"learning_rate"}, [], [])
    monkeypatch.setattr(search, "to_png", lambda figure: figure)

    figure = search.draw_parameter(result, "learning_rate")

    figure.canvas.draw()
    axis = figure.axes[0].xaxis
    left, right = figure.axes[0].get_xlim()
    labels = [
        label
        for label in [*axis.get_majorticklabels(), *axis.get_minorticklabels()]
        if label.get_text() and left <= label.get_position()[0] <= right
    ]
    assert len(labels) >= 2
    for label in labels:
        assert float(label.get_text().replace("\N{MINUS SIGN}", "-")) > 0
    boxes = sorted((label.get_window_extent() for label in labels), key=lambda b: b.x0)
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))
