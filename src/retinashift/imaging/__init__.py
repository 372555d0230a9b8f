"""Photographs in and out: files, field of view, degradation. Knows numpy and file formats; knows no network."""
