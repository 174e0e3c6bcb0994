"""The model as it is shipped."""
