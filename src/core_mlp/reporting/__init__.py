"""Comparing runs that are in Git; no TensorFlow."""
