#!/usr/bin/env python3
"""Prints values of a configuration, one a line: config_values.py CONF [--set KEY=VALUE]... KEY...

With --files, prints the paths of the files that the configuration consists of: itself, and those that `base` names.

KEY is the name of a value with its sections, such as features.source. The configuration is read as `asrtool train`
reads it, with the files that its `base` names and the defaults of missing keys.
"""

import argparse
import sys
from functools import reduce

from asrtool.config_file import config_files, load_config
from asrtool.errors import UserError


def main() -> int:
    """Prints the values; returns the exit status: 2 for a configuration that is not valid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("conf", metavar="CONF")
    parser.add_argument("keys", nargs="*", metavar="KEY")
    parser.add_argument("--files", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    arguments = parser.parse_intermixed_args()
    try:
        if arguments.files:
            print(*config_files(arguments.conf), sep="\n")
            return 0
        config = load_config(arguments.conf, arguments.overrides)
    except UserError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    for key in arguments.keys:
        print(reduce(getattr, key.split("."), config))
    return 0


if __name__ == "__main__":
    sys.exit(main())
