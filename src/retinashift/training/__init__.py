"""Training: settings, samples, losses and the loop."""
