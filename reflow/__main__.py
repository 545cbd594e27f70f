"""`python -m reflow`: the command line."""

import sys

from reflow.cli import main

if __name__ == "__main__":
    sys.exit(main())
