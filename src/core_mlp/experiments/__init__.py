"""Commands that run the pipeline or share its runs; no TensorFlow."""
