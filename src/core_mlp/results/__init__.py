"""What is in metrics/ and plots/: written by a stage each, read by the reports."""
