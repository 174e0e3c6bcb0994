"""A multilayer perceptron on TensorFlow's Core API, trained and shipped by DVC."""
