"""From a low-resolution photograph to its reconstruction."""
