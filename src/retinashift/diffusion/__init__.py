"""The mathematics of residual shifting. Knows torch; knows no file, image or network."""
