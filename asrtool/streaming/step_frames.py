"""How the frames of one stream are divided into steps of the model."""

from typing import NamedTuple

from asrtool.models.acoustic import AcousticModel


class StepFrames(NamedTuple):
    """The feature frames of one stream in a step of `size` frames.

    They are: `lead` frames of padding, `num_frames` frames of the stream, and padding after its end. `length` is the
    number of frames up to the end of the stream, and `size` where it goes on.
    """

    size: int
    lead: int
    num_frames: int
    length: int


class StepSchedule:
    """Divides a stream into steps of whole chunks, and says which of their output frames are the stream's.

    A stream begins with `AcousticModel.lead_padding` frames of padding, its first `delay` output frames are
    meaningless, and after its end it goes on with padding until the model has returned its last frame.
    """

    def __init__(self, model: AcousticModel):
        self._model = model
        self._chunk = model.latency().chunk
        self._factor = model.subsampling.factor
        self._next = -model.lead_padding  # the first feature frame of the next step
        self._next_output = -model.delay  # the first output frame of the next step

    def ready_size(self, num_frames: int, has_ended: bool) -> int:
        """Returns how many frames the stream has for steps, in whole chunks, after `num_frames` feature frames."""
        if has_ended:
            outputs_left = max(0, self._model.out_length(num_frames) - self._next_output) if num_frames else 0
            return -(-outputs_left * self._factor // self._chunk) * self._chunk
        return max(0, num_frames - self._next) // self._chunk * self._chunk

    @property
    def needed_frames(self) -> int:
        """The number of feature frames that a stream has when its next step is ready."""
        return self._next + self._chunk

    def take(self, size: int, num_frames: int, has_ended: bool) -> StepFrames:
        """Returns the frames of the next step of `size` frames, a multiple of the chunk and at most `ready_size`."""
        length = size
        if has_ended:
            length = min(max(num_frames - self._next, 0), size)
        lead = min(max(-self._next, 0), length)
        self._next += size
        return StepFrames(size, lead, length - lead, length)

    def outputs(self, size: int, num_frames: int, has_ended: bool) -> slice:
        """Returns which of the output frames of a step of `size` feature frames are the stream's own."""
        count = size // self._factor
        begin = min(max(-self._next_output, 0), count)
        end = count
        if has_ended:
            end = max(begin, min(count, self._model.out_length(num_frames) - self._next_output))
        self._next_output += count
        return slice(begin, end)
