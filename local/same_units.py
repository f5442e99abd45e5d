#!/usr/bin/env python3
"""Exits with status 0 if two tokenizer files have the same units: same_units.py TOKENIZER TOKENIZER.

The status is 1 if they differ, and 2 for a file that is not a tokenizer.
"""

import sys

from asrtool.errors import UserError
from asrtool.text.tokenizer import load_tokenizer, same_units

if __name__ == "__main__":
    try:
        one, other = map(load_tokenizer, sys.argv[1:])
    except UserError as error:
        print(f"same_units.py: error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(not same_units(one, other))
