"""Photographs, their manual labels, and what keeps training and scoring apart."""
