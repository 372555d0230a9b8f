"""Official ResShift and SinSR weights: read, converted to a checkpoint folder, and written back."""
