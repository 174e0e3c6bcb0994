"""Metrics, significance tests and figures; no TensorFlow."""
