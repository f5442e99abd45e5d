"""A step of a model as sherpa-onnx's loader of streaming Zipformer2 CTC models drives it.

The loader knows nothing about the model but the metadata of the file, from which it computes the shapes of the states.
At each call it passes, for N streams,

    x               (N, chunk, F)     the next frames of each stream: the loader never says where a stream ends
    cached_key      (1, N, S)         float: zeros at the first call, then what the call before returned
    five others     (1, N, 1, 1) ...  the same, as small as the metadata allow
    embed_states    (N, 128, 3, 19)   the same; its shape is fixed
    processed_lens  (N,)              int64: 0 at the first call, then the same

and takes log-probs (N, chunk / factor, V) and the new states. Here, cached_key has all floats of a state, flattened:
frames since the end of the stream (0 where it goes on), frames that wait for the next call, and the tensors of
`AcousticModel.initial_state`. processed_lens counts the calls, from which the index of the next frame follows. The
other states are not used.

The end of a stream. A client appends digital silence to a stream, to get its last words. So frames of digital silence
at the end of a chunk are taken for frames after the end: layers do not see them, and their output is blank. When other
frames follow, the stream goes on. The silence of a microphone is never exactly zero.

The first frames. A model with lead padding wants that many frames of zeros before a stream, and the loader has whole
chunks only. The frames that do not fit into a chunk therefore wait for the next one.

The loader of NeMo CTC models would pass simpler states, but computes its features with librosa's filterbank and a Hann
window, from which those of a model of asrtool, which are Kaldi's, cannot be computed.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from asrtool.export.onnx_graphs import EXAMPLE_BATCH, common_value, trace
from asrtool.models.acoustic import BLANK, AcousticModel
from asrtool.models.masks import ENDLESS, valid_frames

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram

# A bin of a frame without energy: Kaldi's filterbank takes the logarithm of at least the machine epsilon of float32.
SILENT_BIN = math.log(torch.finfo(torch.float32).eps)
SILENCE_LIMIT = SILENT_BIN + 1e-3  # above it, there is energy in a bin
# Frames after the last one of a recording whose windows still reach into it: one where digital silence follows, or two
# if the recording ends between 2.5 and 5 ms after a multiple of 10 ms.
FRAMES_INTO_SILENCE = 1
MAX_SILENCE = 1 << 20  # frames, 3 hours: more than any layer sees, and exact in float32
MASKED_LOG_PROB = (
    -30.0
)  # of all units but the blank where there is no output; finite, so that no search loses its paths
INPUTS = ["x", "cached_key", "cached_nonlin_attn", "cached_val1", "cached_val2", "cached_conv1", "cached_conv2"]
INPUTS += ["embed_states", "processed_lens"]
OUTPUTS = ["log_probs", *(f"new_{name}" for name in INPUTS[1:])]
BATCH_AXES = [0, 1, 1, 1, 1, 0, 0, 0, 0]  # of the inputs
UNUSED_SHAPES = [(1, 1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 2, 1), (1, 2, 1), (1, 128, 3, 19)]  # for one stream


class Layout(NamedTuple):
    """The tensors in a flat cache, one after the other, each with one initial value."""

    shapes: list[torch.Size]  # without the batch axis
    initial_values: list[float]

    @classmethod
    def of(cls, tensors: list[Tensor]) -> "Layout":
        """Returns the layout of the tensors (1, ...) of an initial state; there may be none, and they may be empty."""
        return cls([tensor.shape[1:] for tensor in tensors], [float(common_value(tensor)) for tensor in tensors])

    @property
    def size(self) -> int:
        """The number of elements of the cache of one stream."""
        return sum(shape.numel() for shape in self.shapes)

    def unpack(self, cache: Tensor) -> list[Tensor]:
        """Splits a cache (N, size) into its tensors (N, ...). A cache of zeros gives their initial values."""
        batch = cache.shape[0]
        tensors = []
        begin = 0
        for shape, value in zip(self.shapes, self.initial_values, strict=True):
            end = begin + shape.numel()
            tensors.append(
                cache[:, begin:end].reshape(batch, *shape) + value if end > begin else cache.new_zeros(batch, *shape)
            )
            begin = end
        return tensors

    def pack(self, tensors: list[Tensor]) -> Tensor:
        """Joins tensors (N, ...), at least one of which is not empty, to a cache (N, size)."""
        pairs = zip(tensors, self.initial_values, strict=True)
        parts = [(tensor - value).flatten(1) for tensor, value in pairs if tensor[0].numel()]
        return torch.cat(parts, 1)


class SherpaStep(nn.Module):
    """`AcousticModel.step` with the inputs and outputs that the loader has; see above."""

    def __init__(self, model: AcousticModel):
        super().__init__()
        self.model = model
        self.chunk = model.latency().chunk
        waiting = torch.zeros(1, model.lead_padding, len(model.normalise.mean))
        self.layout = Layout.of([torch.zeros(1, 1), waiting, *model.initial_state(1)[2:]])

    def metadata(self) -> dict[str, str]:
        """Returns what the loader reads from the file: a Zipformer of one layer whose state has the size of ours."""
        numbers = {
            "T": self.chunk,  # frames of a call
            "decode_chunk_len": self.chunk,  # frames from one call to the next
            "num_encoder_layers": 1,
            "left_context_len": 1,
            "num_heads": 1,
            "query_head_dims": self.layout.size,  # of cached_key
            "value_head_dims": 1,  # of cached_val1 and cached_val2
            "encoder_dims": 2,  # of cached_conv1 and cached_conv2; cached_nonlin_attn has 3/4 of it, rounded down
            "cnn_module_kernels": 2,  # the last axis of cached_conv1 and cached_conv2 is half of it
        }
        return {name: str(number) for name, number in numbers.items()} | {"model_type": "zipformer2"}

    def initial_state(self, batch: int) -> list[Tensor]:
        """Returns the states of `batch` streams before their first call, all of them zeros."""
        unused = [
            torch.zeros([batch if i == axis else n for i, n in enumerate(shape)])
            for shape, axis in zip(UNUSED_SHAPES, BATCH_AXES[2:-1], strict=True)
        ]
        return [torch.zeros(1, batch, self.layout.size), *unused, torch.zeros(batch, dtype=torch.int64)]

    def forward(self, x: Tensor, states: list[Tensor]) -> tuple[Tensor, ...]:
        """One call, as described above: x (N, chunk, F), the states; returns log-probs and the new states."""
        cache, *unused, calls = states
        since_end, waiting, *state = self.layout.unpack(cache[0])
        x = torch.cat([waiting, x], 1)  # (N, lead + chunk, F)
        x, waiting = x[:, : self.chunk], x[:, self.chunk :]
        since_end = self._frames_since_end(x, since_end)  # (N, 1)
        first = calls * self.chunk - self.model.lead_padding
        lens = torch.where(since_end > 0, first[:, None] + self.chunk - since_end.long(), ENDLESS)[:, 0].clamp(min=0)
        x_lens = torch.full_like(lens, self.chunk)
        log_probs, state = self.model.step(x, x_lens, [first, lens, *state])
        log_probs = self._blank_where_no_output(log_probs, calls, lens)
        cache = self.layout.pack([since_end, waiting, *state[2:]])
        return log_probs, cache[None], *(tensor.clone() for tensor in unused), calls + 1

    def _frames_since_end(self, x: Tensor, since_end: Tensor) -> Tensor:
        """The frames after the end of a stream, (N, 1), 0 where it goes on, after a chunk x (N, chunk, F)."""
        has_sound = (x > SILENCE_LIMIT).any(2)  # (N, chunk)
        places = torch.arange(1, self.chunk + 1, device=x.device)
        last_sound = torch.where(has_sound, places, 0).amax(1, keepdim=True)  # (N, 1), 0 for none
        silent = (self.chunk - last_sound).to(x.dtype)
        ended_here = torch.where(silent > 0, silent + FRAMES_INTO_SILENCE, 0.0)
        ended_before = (since_end + silent).clamp(max=MAX_SILENCE)
        return torch.where((last_sound == 0) & (since_end > 0), ended_before, ended_here)

    def _blank_where_no_output(self, log_probs: Tensor, calls: Tensor, lens: Tensor) -> Tensor:
        """Makes the blank certain in the meaningless frames of log_probs (N, n, V): before the start, after the end."""
        size, units = log_probs.shape[1:]
        first = calls * size - self.model.delay
        has_output = valid_frames(first, size, self.model.out_length(lens))  # (N, n)
        blank = torch.full((units,), MASKED_LOG_PROB, device=log_probs.device)
        blank[BLANK] = 0.0
        return torch.where(has_output[:, :, None], log_probs, blank)


def streaming_graph(model: AcousticModel, opset: int) -> "ONNXProgram":
    """Returns the graph of a call, with its metadata. The model can stream; it is in evaluation mode, on the CPU."""
    step = SherpaStep(model)
    inputs = (torch.zeros(EXAMPLE_BATCH, step.chunk, len(model.normalise.mean)), step.initial_state(EXAMPLE_BATCH))
    x_axes, *state_axes = ({axis: "N"} for axis in BATCH_AXES)
    program = trace(step, inputs, (x_axes, state_axes), INPUTS, OUTPUTS, opset)
    program.model.metadata_props.update(step.metadata())
    return program


def tail_padding_frames(model: AcousticModel) -> int:
    """Returns the frames of silence after which all words of a stream have come.

    The last chunk must be full, the output frames of a stream run `delay` behind, the loader waits for one frame more
    than a chunk, and a last frame or two stay incomplete unless the client says that its input is finished.
    """
    return model.latency().chunk + model.subsampling.factor * model.delay + 2
