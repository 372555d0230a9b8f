"""Scores of reconstructions, and the benchmark that holds them beside interpolation."""
