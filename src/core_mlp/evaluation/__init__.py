"""Metrics and figures of a model; no TensorFlow."""
