"""`python -m asrtool`."""

import sys

try:
    from asrtool.cli import main

    main()
except KeyboardInterrupt:  # before main could take care of it
    sys.exit(130)
