"""`python -m wasmeval`: the command line."""

import sys

from wasmeval.cli import main

if __name__ == "__main__":
    sys.exit(main())
