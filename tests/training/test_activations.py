"""The curves of the activation functions."""

import numpy as np

from core_mlp.training.activations import activation_curves


def test_activation_curves_by_hand():
    x, relu, softmax = np.transpose(activation_curves())

    assert (x[0], x[100], x[-1]) == (-4, 0, 4)
    np.testing.assert_array_equal(relu, np.maximum(x, 0))
    np.testing.assert_allclose(softmax, np.exp(x) / np.exp(x).sum(), rtol=1e-5)
