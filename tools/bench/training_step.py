"""Training steps per second: forward, backward and optimiser.

encoder     `asrtool.models.transformer.TransformerEncoder` on random frames. Baseline: torch.nn.TransformerEncoder of
            the same size (Pre-Norm, SiLU, final norm, batch first, padding mask), on the same frames with the same
            position encodings, the same parameter count and the same fused AdamW. With dropout 0 both compute the
            same function: weights are copied over and the largest difference of the outputs is printed. With dropout
            torch also draws masks over attention weights and inside the feed-forward layer, which asrtool leaves out
            on purpose; that difference is a part of what is measured.
model       `asrtool.training.train.training_step`, all of it: normalisation, front end, encoder, CTC over --units,
            gradient clipping. Baseline: the same step with torch.nn.TransformerEncoder as the encoder.

Frames are those of the encoder, 40 ms each; utterances are 80 to 100 % of the longest, as in bucketed batches, and
only their frames count as audio. bf16 is autocast; a CPU without instructions for bf16 takes many times as long as for
fp32, so there a comparison may have fewer turns than --repeats (the JSON has them all).
"""

import argparse
import os

import torch
from common import Report, Run, parse, parser
from torch import Tensor, nn
from torch.nn.functional import silu

from asrtool.config import Config, Model
from asrtool.data.loading import Batch, Position
from asrtool.device import pick_device
from asrtool.models.acoustic import AcousticModel
from asrtool.models.masks import padding_mask
from asrtool.models.transformer import TransformerEncoder, sinusoids
from asrtool.training.session import make_optimizer
from asrtool.training.train import training_step

FRAME_SECONDS = 0.04  # of an encoder frame: four feature frames of 10 ms
FACTOR = 4
LARGE = {"layers": 12, "dim": 512, "heads": 8, "ff_dim": 2048}


class TorchEncoder(nn.Module):
    """torch.nn.TransformerEncoder behind the interface of asrtool's, with its positions and input dropout."""

    def __init__(self, model: Model):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            model.dim, model.heads, model.ff_dim, model.dropout, activation=silu, batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(model.dim)
        self.encoder = nn.TransformerEncoder(layer, model.layers, norm, enable_nested_tensor=False)
        self.dropout = nn.Dropout(model.dropout)

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, D), (N,); returns (N, T, D)."""
        x = self.dropout(x * x.shape[2] ** 0.5 + sinusoids(x.shape[1], x.shape[2], x))
        return self.encoder(x, src_key_padding_mask=~padding_mask(x_lens, x.shape[1]))


@torch.no_grad()
def copy_weights(ours: TransformerEncoder, theirs: TorchEncoder) -> None:
    """Give `theirs` the weights of `ours`."""
    for block, layer in zip(ours.blocks, theirs.encoder.layers, strict=True):
        layer.self_attn.in_proj_weight.copy_(block.attention.qkv.weight)
        layer.self_attn.in_proj_bias.copy_(block.attention.qkv.bias)
        layer.self_attn.out_proj.load_state_dict(block.attention.out.state_dict())
        layer.linear1.load_state_dict(block.feed_forward[0].state_dict())
        layer.linear2.load_state_dict(block.feed_forward[2].state_dict())
        layer.norm1.load_state_dict(block.attention_norm.state_dict())
        layer.norm2.load_state_dict(block.ff_norm.state_dict())
    theirs.encoder.norm.load_state_dict(ours.norm.state_dict())


def make_config(arguments: argparse.Namespace, dropout: float, precision: str) -> Config:
    """The configuration of the sizes asked for."""
    names = ("layers", "dim", "heads", "ff_dim")
    model = {name: getattr(arguments, name) for name in names} | {"dropout": dropout}
    return Config.model_validate({"model": model, "training": {"precision": precision}})


def lengths(arguments: argparse.Namespace, device: torch.device) -> Tensor:
    """(N,) lengths from 80 to 100 % of --frames."""
    return torch.linspace(0.8 * arguments.frames, arguments.frames, arguments.batch).round().long().flip(0).to(device)


class EncoderStep:
    """Steps of an encoder alone; the loss is a random projection, which costs nothing."""

    def __init__(self, encoder: nn.Module, config: Config, arguments: argparse.Namespace, device: torch.device):
        self.encoder, self.precision, self.device = encoder.to(device).train(), config.training.precision, device
        self.optimizer = make_optimizer(encoder, config)
        self.lens = lengths(arguments, device)
        self.x, self.direction = torch.randn(2, arguments.batch, arguments.frames, arguments.dim, device=device)

    def __call__(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            y = self.encoder(self.x, self.lens)
        loss = (y.float() * self.direction).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        loss.item()  # waits for the device


class ModelStep:
    """Steps of the whole model, as training takes them."""

    def __init__(self, torch_encoder: bool, config: Config, arguments: argparse.Namespace, device: torch.device):
        self.model = AcousticModel(config, arguments.units)
        if torch_encoder:
            self.model.encoder = TorchEncoder(config.model)
        self.model.to(device).train()
        self.optimizer = make_optimizer(self.model, config)
        self.config, self.device = config, device
        self.batch = _batch(arguments, config.features.num_bins)

    def __call__(self) -> None:
        training_step(self.model, self.optimizer, self.batch, self.device, self.config, 1)


def _batch(arguments: argparse.Namespace, bins: int) -> Batch:
    """Random features and targets; a unit every four frames (160 ms), about what BPE of 500 units gives."""
    lens = lengths(arguments, torch.device("cpu"))
    features = torch.randn(arguments.batch, FACTOR * arguments.frames, bins)
    target_lens = lens // 4
    targets = torch.randint(1, arguments.units, (arguments.batch, int(target_lens.max())))
    names = [str(number) for number in range(arguments.batch)]
    seconds = FRAME_SECONDS * int(lens.sum())
    return Batch(Position(), names, names, features, FACTOR * lens, targets, target_lens, seconds)


def compare_encoders(report: Report, arguments: argparse.Namespace, device: torch.device, **labels) -> None:
    """Encoder steps with and without dropout."""
    seconds = FRAME_SECONDS * int(lengths(arguments, device).sum())
    for dropout in (0.0, 0.1):
        config = make_config(arguments, dropout, labels["precision"])
        steps = [
            EncoderStep(kind(config.model), config, arguments, device) for kind in (TransformerEncoder, TorchEncoder)
        ]
        runs = [Run("asrtool", steps[0], seconds), Run("torch.nn", steps[1], seconds)]
        report.compare(_case("encoder", dropout, **labels), runs, dropout=dropout, **labels)


def compare_models(report: Report, arguments: argparse.Namespace, device: torch.device, **labels) -> None:
    """Whole steps, with the dropout that training has."""
    config = make_config(arguments, 0.1, labels["precision"])
    steps = [ModelStep(kind, config, arguments, device) for kind in (False, True)]
    seconds = steps[0].batch.seconds
    runs = [Run("asrtool", steps[0], seconds), Run("torch.nn", steps[1], seconds)]
    report.compare(_case("model", 0.1, **labels), runs, dropout=0.1, **labels)


def _case(name: str, dropout: float, precision: str, threads: int) -> str:
    return f"{name}, {precision}, {threads} thr, dropout {dropout:g}"


@torch.no_grad()
def report_agreement(report: Report, arguments: argparse.Namespace) -> None:
    """That both encoders are the same function with the same number of parameters."""
    model = make_config(arguments, 0.0, "fp32").model
    ours, theirs = TransformerEncoder(model), TorchEncoder(model)
    copy_weights(ours, theirs)
    lens = lengths(arguments, torch.device("cpu"))
    x = torch.randn(arguments.batch, arguments.frames, arguments.dim)
    difference = (ours(x, lens) - theirs(x, lens))[padding_mask(lens, arguments.frames)].abs().max()
    report.fact("largest difference of the outputs", float(difference), "the encoders with the same weights")
    counts = [sum(p.numel() for p in encoder.parameters()) for encoder in (ours, theirs)]
    report.fact("parameters of the encoder", counts[0], f"torch.nn: {counts[1]}")


def options() -> argparse.ArgumentParser:
    """Sizes, threads and device."""
    made = parser(__doc__, repeats=5)
    made.add_argument("--large", action="store_true", help=f"defaults as in the paper's model: {LARGE}")
    sizes = {"layers": 6, "dim": 256, "heads": 4, "ff-dim": 1024, "batch": 8, "frames": 300, "units": 500}
    for name, value in sizes.items():
        made.add_argument(f"--{name}", type=int, default=value, help="%(default)s")
    threads = sorted({1, os.cpu_count() or 1})
    made.add_argument("--threads", type=int, nargs="+", default=threads, help="each of these in turn (1 and all)")
    made.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    made.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto (%(default)s)")
    return made


def main() -> None:
    """Measure and report."""
    made = options()
    if made.parse_args().large:
        made.set_defaults(**LARGE)
    arguments = parse(made, layers=1, dim=32, heads=2, ff_dim=64, batch=2, frames=8, units=11, threads=[1])
    torch.manual_seed(1)
    device = pick_device(arguments.device)
    report = Report("training_step", arguments, "audio s", arguments.device)
    report.values["threads"] = arguments.threads
    report_agreement(report, arguments)
    for precision in arguments.precisions:  # bf16 last: without instructions for it a CPU takes many times as long
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            compare_encoders(report, arguments, device, precision=precision, threads=threads)
            compare_models(report, arguments, device, precision=precision, threads=threads)
    report.finish()


if __name__ == "__main__":
    main()
