"""A multilayer perceptron on TensorFlow's Core API, from raw images to a SavedModel."""
