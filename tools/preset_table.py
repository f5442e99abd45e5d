"""Write the table of all presets of a recipe into its README, between the two lines that name this script.

python tools/preset_table.py egs/librispeech            # writes
python tools/preset_table.py egs/librispeech --check    # says whether it is up to date, by the exit status
"""

import argparse
import math
import sys
from pathlib import Path

from asrtool.config import Config, load_config
from asrtool.models.info import Info, model_info
from asrtool.scoring import markdown

UNITS = 500
BEGIN, END = "<!-- tools/preset_table.py writes from here -->", "<!-- to here -->"
HEAD = ["configuration", "system", "parameters", "GFLOP/s", "memory", "latency, at most / on average", "looks back"]


def row(name: str, config: Config, info: Info) -> list[str]:
    """A line of the table."""
    back = "all" if math.isinf(info.left) else f"{info.left / 100:.1f} s"
    latency = f"{info.maximum_latency:,.0f} / {info.average_latency:,.0f} ms" if info.streams else "the utterance"
    memory = f"{(info.weights + info.activations) / 1e9:.1f} GB, {info.batch_seconds:.0f} s"
    millions = f"{sum(info.parameters.values()) / 1e6:.1f} M"
    return [f"`conf/{name}.yaml`", system(config), millions, f"{info.flops / 1e9:.2f}", memory, latency, back]


def system(config: Config) -> str:
    """The model in a few words."""
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
    """The table in Markdown, full sizes first, then the twins."""
    paths = sorted(
        (recipe / "conf").glob("*.yaml"), key=lambda path: (path.stem.endswith("_twin"), markdown.natural(path.stem))
    )
    configs = {path.stem: load_config(path) for path in paths}
    return markdown.table(HEAD, [row(name, config, model_info(config, UNITS)) for name, config in configs.items()])


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    readme = arguments.recipe / "README.md"
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        sys.exit(f"{readme} has no lines '{BEGIN}' and '{END}'; put them where the table should stand")
    made = markdown.put(text, BEGIN, END, table(arguments.recipe))
    if arguments.check and made != text:
        sys.exit(f"{readme} is not up to date; run python tools/preset_table.py {arguments.recipe}")
    if not arguments.check:
        readme.write_text(made, encoding="utf-8")


if __name__ == "__main__":
    main()
