"""Data, settings and the training loop."""
