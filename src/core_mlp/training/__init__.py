"""The model, its optimizer, and the compiled training loop."""
