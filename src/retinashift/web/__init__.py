"""The local web page, a leaf: it imports every room but the command line, and only the command `app` starts it."""
