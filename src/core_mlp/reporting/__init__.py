"""Compares and describes the results that are in Git; no TensorFlow."""
