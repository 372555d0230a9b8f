"""Pictures for people: comparisons, plots, uncertainty overlays."""
