"""Writes the table of all model configurations of a recipe into its README, between two comments.

python tools/preset_table.py egs/librispeech            # writes the table
python tools/preset_table.py egs/librispeech --check    # exits with status 1 if the table is not up to date
"""

import argparse
import math
import sys
from pathlib import Path

from asrtool.config import Config
from asrtool.config_file import load_config
from asrtool.models.info import ModelInfo, model_info
from asrtool.scoring import markdown

UNITS = 500
BEGIN, END = "<!-- tools/preset_table.py writes from here -->", "<!-- to here -->"
HEAD = ["configuration", "system", "parameters", "GFLOP/s", "memory", "latency, at most / on average", "looks back"]


def row(name: str, config: Config, info: ModelInfo) -> list[str]:
    """Returns the cells of one configuration; `name` is its path in the recipe."""
    back = "all" if math.isinf(info.left) else f"{info.left / 100:.1f} s"
    latency = f"{info.maximum_latency:,.0f} / {info.average_latency:,.0f} ms" if info.can_stream else "the utterance"
    memory = f"{(info.weights + info.activations) / 1e9:.1f} GB, {info.batch_seconds:.0f} s"
    millions = f"{sum(info.parameters.values()) / 1e6:.1f} M"
    return [f"`{name}`", system(config), millions, f"{info.flops / 1e9:.2f}", memory, latency, back]


def system(config: Config) -> str:
    """Returns the model in a few words: layers x width, front end, norm, positions, convolution, initialisation."""
    model = config.model
    words = [
        f"{model.layers} x {model.dim}",
        {"conv": "2-D convolution"}.get(model.subsampling.kind, model.subsampling.kind),
    ]
    if "blstm" in model.architecture:
        return ", ".join(words)
    words += [f"{model.norm}-norm", f"{model.positional_encoding} positions".replace("none", "no")]
    words += [f"{model.convolution.kind} convolution"] * (model.convolution.kind != "none")
    words += ["depth-scaled init"] * (model.init.scheme == "depth_scaled")
    return ", ".join(words)


def table(recipe: Path) -> str:
    """Returns the table in Markdown: the configurations in conf/, then the small models in conf/small/."""
    rows = []
    for folder in ("conf", "conf/small"):
        for path in sorted((recipe / folder).glob("*.yaml"), key=lambda path: markdown.natural_sort_key(path.stem)):
            config = load_config(path)
            rows.append(row(f"{folder}/{path.name}", config, model_info(config, UNITS)))
    return markdown.markdown_table(HEAD, rows)


def main() -> None:
    """Writes or checks the table of the recipe that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="folder of the recipe, with conf/ and README.md")
    parser.add_argument("--check", action="store_true", help="only compare the table with the configurations")
    arguments = parser.parse_args()
    readme = arguments.recipe / "README.md"
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        sys.exit(f"{readme} has no lines '{BEGIN}' and '{END}'; put them where the table belongs")
    updated = markdown.replace_section(text, BEGIN, END, table(arguments.recipe))
    if arguments.check and updated != text:
        sys.exit(f"{readme} is not up to date; run python tools/preset_table.py {arguments.recipe}")
    if not arguments.check:
        readme.write_text(updated, encoding="utf-8")


if __name__ == "__main__":
    main()
