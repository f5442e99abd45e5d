"""Forward and backward of asrtool's encoder, compared with another toolkit's at the same size, batch, type and dropout.

espnet      `espnet.nets.pytorch_backend.transformer.encoder.Encoder`, Pre-Norm, ReLU, sinusoidal positions, with its
            faster option, attention through torch's scaled_dot_product_attention. asrtool's encoder has ReLU here,
            too. ESPnet also has dropout inside the feed-forward layer, and projects queries, keys and values
            separately; with a dropout of 0 this is the only difference. The parameters of both are printed.

The toolkit is not a dependency of asrtool. Install it into a separate folder; the encoder needs only torch:

    pip install --no-deps --target FOLDER espnet        then PYTHONPATH=FOLDER
"""

import argparse
import sys
from contextlib import redirect_stdout
from importlib.metadata import version

import torch
from common import Report, Run, parse, parser
from encoders import QUICK, EncoderStep, add_sizes, models, seconds, settle
from torch import Tensor, nn

from asrtool.config import ModelConfig
from asrtool.device import pick_device
from asrtool.models.masks import padding_mask
from asrtool.models.transformer import TransformerEncoder

HINT = "espnet cannot be imported ({}): pip install --no-deps --target FOLDER espnet, then PYTHONPATH=FOLDER"


class EspnetEncoder(nn.Module):
    """ESPnet's encoder with the interface of asrtool's encoder."""

    def __init__(self, model: ModelConfig):
        super().__init__()
        with redirect_stdout(sys.stderr):  # its import prints which packages are missing
            from espnet.nets.pytorch_backend.transformer.encoder import Encoder
        self.encoder = Encoder(
            model.dim,
            attention_dim=model.dim,
            attention_heads=model.heads,
            linear_units=model.ff_dim,
            num_blocks=model.layers,
            dropout_rate=model.dropout,
            positional_dropout_rate=model.dropout,
            input_layer=None,
        )
        for layer in self.encoder.encoders:
            layer.self_attn.use_sdpa = True

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, D), (N,); returns (N, T, D)."""
        return self.encoder(x, padding_mask(x_lens, x.shape[1])[:, None, :])[0]


ENCODERS = {"asrtool": TransformerEncoder, "espnet": EspnetEncoder}


def compare(report: Report, model: ModelConfig, arguments: argparse.Namespace, precision: str, threads: int) -> None:
    """Compares steps of both encoders."""
    model = model.model_copy(update={"activation": "relu"})
    device = pick_device(arguments.device)
    encoders = {name: make(model) for name, make in ENCODERS.items()}
    ours, theirs = (sum(p.numel() for p in encoder.parameters()) for encoder in encoders.values())
    if arguments.compile:
        compiled = {f"{name}, compiled": torch.compile(make(model)) for name, make in ENCODERS.items()}
        encoders = compiled | encoders
    runs = [
        Run(name, EncoderStep(encoder, model.dim, arguments, device, precision), seconds(arguments))
        for name, encoder in encoders.items()
    ]
    case = f"{model.dim}, {precision}, {threads} thr, dropout {model.dropout:g}"
    report.compare(case, runs, dim=model.dim, precision=precision, threads=threads, dropout=model.dropout)
    report.fact(f"parameters, {case}", ours, f"espnet: {theirs}")


def main() -> int:
    """Measures and reports; exit status 2 if the other toolkit is missing."""
    command_line = parser(__doc__, repeats=5, limit=300.0)
    add_sizes(command_line)
    arguments = parse(command_line, **QUICK)
    settle(arguments)
    try:
        EspnetEncoder(ModelConfig(dim=8, heads=2, ff_dim=8, layers=1))
    except ImportError as error:
        print(HINT.format(error), file=sys.stderr)
        return 2
    torch.manual_seed(1)
    report = Report("other_toolkits", arguments, "audio s", arguments.device)
    report.values["threads"] = arguments.threads
    report.values["versions"]["espnet"] = version("espnet")
    report.fact("espnet", version("espnet"))
    for precision in arguments.precisions:
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            for dropout in arguments.dropouts:
                for model in models(arguments, dropout):
                    compare(report, model, arguments, precision, threads)
    report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
