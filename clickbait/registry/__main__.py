"""`python -m clickbait.registry`."""

import sys

from clickbait.registry.command import main

if __name__ == "__main__":
    sys.exit(main())
