"""`python -m asrtool`."""

from asrtool.cli import main

main()
