"""`python -m retinashift`, which is also how `accelerate launch -m` starts the command line."""

from retinashift.cli import main

if __name__ == "__main__":
    main()
