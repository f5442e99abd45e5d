#!/usr/bin/env python3
"""Prints which manifests cross entropy needs with alignments: aligned_data.py CONF FOLDER [--set KEY=VALUE]...

data.train and data.dev of the configuration name the manifests; each may name several. Each line has
fields that are separated by tabs:

    align MANIFEST OUT      the manifest OUT in FOLDER is MANIFEST with alignments
    set KEY=VALUE           an override of the configuration, which names the manifests in FOLDER
"""

import argparse
import json
import sys
from pathlib import Path

from asrtool.config_data import DataConfig
from asrtool.config_file import load_config
from asrtool.errors import UserError


def aligned_paths(data: DataConfig, folder: Path) -> dict[Path, Path]:
    """Returns the path in `folder` of each manifest; manifests whose files have the same name get a number."""
    paths: dict[Path, Path] = {}
    for manifest in dict.fromkeys([*data.train_manifests, *data.dev_sets.values()]):
        path = folder / manifest.name
        if path in paths.values():
            path = folder / f"{len(paths)}_{manifest.name}"
        paths[manifest] = path
    return paths


def overrides(data: DataConfig, paths: dict[Path, Path]) -> list[str]:
    """Returns the overrides of data.train and data.dev, with weights and names as they were."""
    if isinstance(data.train, tuple):
        train = json.dumps([{"manifest": str(paths[one.manifest]), "weight": one.weight} for one in data.corpora])
    else:
        train = str(paths[data.train])
    if isinstance(data.dev, dict):
        dev = json.dumps({name: str(paths[manifest]) for name, manifest in data.dev.items()})
    else:
        dev = str(paths[data.dev])
    return [f"data.train={train}", f"data.dev={dev}"]


def main() -> int:
    """Prints the lines; returns the exit status: 2 for a configuration that is not valid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("conf", metavar="CONF")
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    arguments = parser.parse_args()
    try:
        data = load_config(arguments.conf, arguments.overrides).data
    except UserError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    paths = aligned_paths(data, arguments.folder)
    for manifest, out in paths.items():
        print("align", manifest, out, sep="\t")
    for override in overrides(data, paths):
        print("set", override, sep="\t")
    return 0


if __name__ == "__main__":
    sys.exit(main())
