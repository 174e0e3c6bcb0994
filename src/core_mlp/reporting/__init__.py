"""What is in Git, compared and described; no TensorFlow."""
