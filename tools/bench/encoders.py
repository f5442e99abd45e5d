"""Shared parts of the encoder benchmarks: sizes, a batch, the baseline, a step, its matrix products, its memory."""

import argparse
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import torch
from common import Run
from torch import Tensor, nn
from torch.nn.functional import silu

from asrtool.config import ModelConfig
from asrtool.device import lacks_bf16, pick_device
from asrtool.models.attention import AttentionContext
from asrtool.models.masks import padding_mask
from asrtool.models.relative_positions import sinusoids
from asrtool.models.transformer import TransformerEncoder, attention_contexts
from asrtool.precision import autocast

FRAME_SECONDS = 0.04  # of an encoder frame: four feature frames of 10 ms
PRODUCTS = 3  # of a matrix: forward, gradient of its input, gradient of its weights

RELATIVE = {"positional_encoding": "relative"}
CHUNKS = {"chunk_size": 20, "memory": 40, **RELATIVE}
KINDS: dict[str, dict] = {  # beside the plain encoder: what the presets of egs/librispeech have
    "xl": {"architecture": "transformer_xl", **CHUNKS},
    "chunk": {"mask": "chunk", **CHUNKS},
    "sliding": {"mask": "sliding", "left_context": 40, "right_context": 2, **RELATIVE},
    "conformer": {"convolution": {"kind": "conformer", "kernel": 15}},
}


def add_sizes(command_line: argparse.ArgumentParser) -> None:
    """Adds options for sizes of encoders and batch, and the device; by default the paper's size and a narrow one."""
    command_line.add_argument(
        "--dims", type=int, nargs="+", default=[512, 192], help="model widths to measure [default: 512 192]"
    )
    command_line.add_argument(
        "--heads", type=int, nargs="+", default=[8, 4], help="attention heads for each width [default: 8 4]"
    )
    command_line.add_argument(
        "--layers", type=int, default=12, help="layers, with a feed-forward width of 4 dims [default: %(default)s]"
    )
    command_line.add_argument("--batch", type=int, default=8, help="utterances in a batch [default: %(default)s]")
    command_line.add_argument(
        "--frames",
        type=int,
        nargs=2,
        default=[300, 500],
        metavar=("SHORTEST", "LONGEST"),
        help="frames of the shortest and the longest utterance",
    )
    command_line.add_argument(
        "--threads", type=int, nargs="+", default=[1, 2], help="numbers of threads to measure [default: 1 2]"
    )
    command_line.add_argument(
        "--precisions",
        nargs="+",
        choices=["fp32", "bf16"],
        help="precisions to measure [default: fp32, and bf16 if the hardware has it]",
    )
    command_line.add_argument(
        "--dropouts",
        type=float,
        nargs="+",
        default=[0.0, 0.1],
        help="dropout probabilities to measure [default: 0 0.1]",
    )
    command_line.add_argument(
        "--device", default="cpu", help="device: cpu, cuda, cuda:N or auto [default: %(default)s]"
    )
    command_line.add_argument("--compile", action="store_true", help="also measure the encoders under torch.compile")


QUICK = {"dims": [32], "heads": [2], "layers": 1, "batch": 2, "frames": [6, 8], "threads": [1], "dropouts": [0.1]}


def settle(arguments: argparse.Namespace) -> torch.device:
    """The device, by which the rest of the options is decided."""
    device = pick_device(arguments.device)
    arguments.device = str(device)
    arguments.precisions = arguments.precisions or (["fp32"] if lacks_bf16(device) else ["fp32", "bf16"])
    if device.type != "cpu":
        arguments.threads = [torch.get_num_threads()]
    return device


def models(arguments: argparse.Namespace, dropout: float, kind: str = "plain") -> list[ModelConfig]:
    """Returns the requested models, plain ones or models of one of KINDS."""
    sizes = zip(arguments.dims, arguments.heads, strict=True)
    rest = {"layers": arguments.layers, "dropout": dropout, **KINDS.get(kind, {})}
    return [ModelConfig(dim=dim, heads=heads, ff_dim=4 * dim, **rest) for dim, heads in sizes]


def lengths(arguments: argparse.Namespace, device: torch.device | str = "cpu") -> Tensor:
    """Returns (N,) lengths from the longest to the shortest of --frames, in even steps."""
    return torch.linspace(*arguments.frames, arguments.batch).round().long().flip(0).to(device)


def seconds(arguments: argparse.Namespace) -> float:
    """Returns seconds of audio in the batch, without padding."""
    return FRAME_SECONDS * int(lengths(arguments).sum())


class TorchEncoder(nn.Module):
    """torch.nn.TransformerEncoder with the interface, positions and input dropout of asrtool's encoder."""

    def __init__(self, model: ModelConfig):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            model.dim, model.heads, model.ff_dim, model.dropout, activation=silu, batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(model.dim)
        self.encoder = nn.TransformerEncoder(layer, model.layers, norm, enable_nested_tensor=False)
        self.dropout = nn.Dropout(model.dropout)

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        """(N, T, D), (N,); returns (N, T, D)."""
        positions = sinusoids(torch.arange(x.shape[1], device=x.device), x.shape[2])
        x = self.dropout(x * x.shape[2] ** 0.5 + positions)
        return self.encoder(x, src_key_padding_mask=~padding_mask(x_lens, x.shape[1]))


ENCODERS: dict[str, Callable[[ModelConfig], nn.Module]] = {"asrtool": TransformerEncoder, "torch.nn": TorchEncoder}


@torch.no_grad()
def copy_weights(ours: TransformerEncoder, theirs: TorchEncoder) -> None:
    """Copies the weights of `ours` to `theirs`."""
    for block, layer in zip(ours.blocks, theirs.encoder.layers, strict=True):
        layer.self_attn.in_proj_weight.copy_(block.attention.qkv.weight)
        layer.self_attn.in_proj_bias.copy_(block.attention.qkv.bias)
        layer.self_attn.out_proj.load_state_dict(block.attention.out.state_dict())
        layer.linear1.load_state_dict(block.feed_forward[0].state_dict())
        layer.linear2.load_state_dict(block.feed_forward[2].state_dict())
        layer.norm1.load_state_dict(block.attention_norm.state_dict())
        layer.norm2.load_state_dict(block.ff_norm.state_dict())
    theirs.encoder.norm.load_state_dict(ours.norm.state_dict())


class EncoderStep:
    """Forward and backward of an encoder on random frames; the loss is a random projection, which costs nothing.

    `precision` is that of training: on a CPU without bf16 instructions, bf16 is fp32 (asrtool.precision).
    """

    def __init__(self, encoder: nn.Module, dim: int, arguments: argparse.Namespace, device, precision: str):
        self.encoder, self.precision, self.device = encoder.to(device).train(), precision, torch.device(device)
        self.lens = lengths(arguments, device)
        self.x, self.direction = torch.randn(2, arguments.batch, arguments.frames[1], dim, device=device)

    def __call__(self) -> None:
        with autocast(self.precision, self.device):
            y = self.encoder(self.x, self.lens)
        loss = (y.float() * self.direction).mean()
        self.encoder.zero_grad(set_to_none=True)
        loss.backward()
        loss.item()  # waits for the device


def matrix_flops(model: ModelConfig, lens: Tensor) -> float:
    """Returns the FLOPs of the necessary matrix products of a step: for valid frames only, including attention.

    Attention counts the pairs of a frame and one that it sees: q k and p v, and of relative positions q r.
    """
    weights = model.layers * sum(rows * columns for rows, columns in matrices(model))
    pairs = sum(visible_pairs(context, length) for context in attention_contexts(model) for length in lens.tolist())
    products = 3 if model.positional_encoding == "relative" else 2
    return 2 * PRODUCTS * (weights * float(lens.sum()) + products * model.dim * pairs)


def visible_pairs(context: AttentionContext, length: int) -> int:
    """Returns the number of pairs of a frame of an utterance of `length` and a frame that it sees."""
    frame = torch.arange(length)
    start = frame // context.chunk * context.chunk if context.chunk else frame
    last = start + context.chunk - 1 if context.chunk else frame + (length if context.right is None else context.right)
    first = start - (length if context.left is None else context.left)
    return int((last.clamp(max=length - 1) - first.clamp(min=0) + 1).sum())


def matrices(model: ModelConfig) -> list[tuple[int, int]]:
    """Returns the sizes of a layer's matrices: q k v, output, two of the feed-forward layer, two of a Conformer's
    convolution."""
    dim, ff_dim = model.dim, model.ff_dim
    sizes = [(dim, 3 * dim), (dim, dim), (dim, ff_dim), (ff_dim, dim)]
    return sizes + [(dim, 2 * dim), (dim, dim)] * (model.convolution.kind == "conformer")


def products_alone(model: ModelConfig, arguments: argparse.Namespace, device: torch.device, precision: str) -> Run:
    """The matrix products of one layer, three of each matrix, over the padded frames of the batch.

    Its amount is the audio that a step would get through, were there nothing but such products, and no padding.
    """
    bf16 = precision == "bf16" and not lacks_bf16(device)  # without bf16 instructions, measure fp32
    rows, kind = arguments.batch * arguments.frames[1], torch.bfloat16 if bf16 else torch.float32
    shapes = [((rows, a), (rows, b), (b, a)) for a, b in matrices(model)]
    tensors = [[torch.randn(shape, device=device).to(kind) for shape in three] for three in shapes]

    def call() -> None:
        for x, y, weight in tensors:
            last = (x @ weight.t(), y @ weight, y.t() @ x)[2]
        last[0, 0].item()  # waits for the device

    flops = 2 * PRODUCTS * rows * sum(a * b for a, b in matrices(model))
    return Run("matrix products alone", call, seconds(arguments) * flops / matrix_flops(model, lengths(arguments)))


def peak_memory(name: str, model: ModelConfig, arguments: argparse.Namespace, precision: str) -> float:
    """Returns peak bytes of two steps of the encoder `name`, with weights and gradients, in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_of_steps, name, model, arguments, precision).result()


def _peak_of_steps(name: str, model: ModelConfig, arguments: argparse.Namespace, precision: str) -> float:
    device = torch.device(arguments.device)
    first = model.model_copy(update={"layers": 1, "dim": 16, "heads": 1, "ff_dim": 16})
    EncoderStep(ENCODERS[name](first), first.dim, arguments, device, precision)()  # loads what the first call loads
    before = peak(device)
    step = EncoderStep(ENCODERS[name](model), model.dim, arguments, device, precision)
    step()
    step()
    return peak(device) - before


def peak(device: torch.device) -> float:
    """Returns the peak memory of this process in bytes, on its device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError):  # what getrusage says starts at the size of the parent, on Linux
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS
