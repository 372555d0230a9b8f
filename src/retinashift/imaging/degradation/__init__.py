"""How a low-resolution input is made from a photograph."""
