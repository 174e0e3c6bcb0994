"""What runs the pipeline, or what shares its runs; no TensorFlow."""
