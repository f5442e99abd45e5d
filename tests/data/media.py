"""Writes media files for tests, with PyAV."""

from fractions import Fraction

import av
import numpy as np


def write_media(path, samples: np.ndarray, rate: int, codec: str = "aac", first_time: float = 0.0, skipped=()) -> str:
    """Writes (n,) or (n, channels) float samples as one audio stream; returns the path.

    first_time: in seconds; if it is not 0, a video that begins at 0 stands before the audio. skipped: numbers of the
    audio packets that are left out.
    """
    channels = np.atleast_2d(samples.T).astype(np.float32)  # (channels, n)
    with av.open(str(path), "w") as container:
        video = _add_video(container) if first_time else []
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono" if len(channels) == 1 else "stereo"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(channels), format="fltp", layout=stream.layout.name)
        frame.rate = rate
        fifo = av.AudioFifo()
        fifo.write(frame)
        frames = fifo.read_many(stream.codec_context.frame_size or 1024, partial=True)
        position = round(first_time * rate)
        for part in frames:
            part.pts, part.time_base = position, Fraction(1, rate)
            position += part.samples
        packets = [packet for part in [*frames, None] for packet in stream.encode(part)]
        for packet in video:
            container.mux(packet)
        for number, packet in enumerate(packets):
            if number not in skipped:
                container.mux(packet)
    return str(path)


def _add_video(container) -> list[av.Packet]:
    """Adds a video stream of three frames; returns its packets."""
    stream = container.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
    frames = [av.VideoFrame(32, 32, "yuv420p") for _ in range(3)]
    return [packet for frame in [*frames, None] for packet in stream.encode(frame)]


def write_video(path) -> str:
    """Writes a video without audio; returns the path."""
    with av.open(str(path), "w") as container:
        for packet in _add_video(container):
            container.mux(packet)
    return str(path)
