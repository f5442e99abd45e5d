"""Runs the command line as `python -m asrtool`."""

import sys

try:
    from asrtool.cli import main

    main()
except KeyboardInterrupt:  # before main could handle it
    sys.exit(130)
