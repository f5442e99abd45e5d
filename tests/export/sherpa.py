"""Systems with random weights whose greedy search gives many different words, audio, and sherpa-onnx's recognisers."""

import json
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import soundfile
import torch

import asrtool
from asrtool import checkpoint
from asrtool.config import Config
from asrtool.config_file import save_config
from asrtool.models.acoustic import AcousticModel
from asrtool.text.tokenizer import BLANK_SYMBOL, SymbolTokenizer, save_tokenizer
from tests.tiny import RATE, TINY

UNITS = 30
STARTS = 60  # seconds that a server may take to listen, or to answer


def make_system(folder: Path, **model: object) -> Path:
    """Writes an experiment of one layer."""
    config = Config.model_validate({"features": TINY["features"], "model": {**TINY["model"], "layers": 1, **model}})
    tokenizer = SymbolTokenizer("word", [BLANK_SYMBOL, *(f"w{number}" for number in range(1, UNITS))])
    torch.manual_seed(3)
    network = AcousticModel(config.model, config.features.num_bins, tokenizer.size)
    network.normalise.set_statistics(torch.full((20,), -5.0), torch.full((20,), 3.0))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2 if parameter.dim() > 1 else 1)
        network.output.weight.normal_(std=2)
        network.output.bias.zero_()
    save_config(config, folder / "config.yaml")
    save_tokenizer(tokenizer, folder / "tokenizer.json")
    state = {"model": network.state_dict(), "config": config.model_dump(mode="json")}
    checkpoint.save_checkpoint(folder / "checkpoints" / "best.pt", state)
    return folder


def sweep(seed: int, frames: int) -> np.ndarray:
    """Returns `frames` frames of 10 ms of a tone of changing frequency and loudness in steady noise, float32.

    As a recording of speech, it ends without speech: in the last frame, sherpa-onnx gets zeros where asrtool mirrors
    the samples.
    """
    samples = 160 * frames
    draw = np.random.default_rng(seed)
    knots = np.arange(0, samples + 4000, 2000)
    loudness, frequency = (
        np.interp(np.arange(samples), knots, draw.uniform(low, high, len(knots))) for low, high in ((0, 1), (200, 4000))
    )
    loudness[-3200:] *= np.linspace(1, 0, 3200).clip(0.5) * 2 - 1
    tone = 0.2 * loudness * np.sin(np.cumsum(2 * np.pi * frequency / RATE))
    return (tone + 0.003 * draw.standard_normal(samples)).astype(np.float32)


def sweeps() -> list[np.ndarray]:
    """Returns recordings of 0.2 to 5 s."""
    frames = np.random.default_rng(5).integers(20, 500, 10).tolist()
    return [sweep(seed, length) for seed, length in enumerate(frames)]


def asrtool_words(folder: Path, recordings: list[np.ndarray], method: str = "greedy", **options: object) -> list[list]:
    """Returns the words of each recording, streamed by asrtool without endpoints."""
    model = asrtool.load(folder, checkpoint="best", device="cpu", method=method, **options)
    words = []
    for samples in recordings:
        stream = model.stream(rate=RATE, endpoint=())
        results = [*stream.accept(samples), *stream.finish()]
        words.append([word.text for result in results if result.is_final for word in result.words])
    model.close()
    return words


def sherpa_streams(recognizer, recordings: list[np.ndarray], tail_padding: float) -> list:
    """Streams all recordings at once through an OnlineRecognizer, in batches; returns the streams."""
    streams = []
    for samples in recordings:
        stream = recognizer.create_stream()
        stream.accept_waveform(RATE, np.concatenate([samples, np.zeros(round(tail_padding * RATE), np.float32)]))
        stream.input_finished()
        streams.append(stream)
    while ready := [stream for stream in streams if recognizer.is_ready(stream)]:
        recognizer.decode_streams(ready)
    return streams


def free_port() -> int:
    """Returns a port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_port(port: int, server: subprocess.Popen) -> None:
    """Returns when the server listens. Raises AssertionError if it ends, or takes more than STARTS seconds."""
    deadline = time.monotonic() + STARTS
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server has ended"
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the server does not listen")


def websocket_results(port: int, recordings: list[np.ndarray]) -> list[dict]:
    """Sends the recordings to sherpa-onnx's server, all at once, in turns; returns the last result of each.

    The last result says `is_eof`. It may come after the message "Done!", which another thread of the server sends.
    """
    from websockets.sync.client import connect

    with ExitStack() as stack:
        clients = [stack.enter_context(connect(f"ws://127.0.0.1:{port}")) for _ in recordings]
        for begin in range(0, max(map(len, recordings)), 4000):
            for client, samples in zip(clients, recordings, strict=True):
                if begin < len(samples):
                    client.send(samples[begin : begin + 4000].tobytes())
        for client in clients:
            client.send("Done")
        return [_last_result(client) for client in clients]


def _last_result(client) -> dict:
    result: dict = {}
    while not result.get("is_eof"):
        message = client.recv(timeout=STARTS)
        if message != "Done!":
            result = json.loads(message)
    return result


def write_wavs(folder: Path, recordings: list[np.ndarray]) -> list[Path]:
    """Writes the recordings as 16-bit WAV files, and returns their paths."""
    paths = [folder / f"{number}.wav" for number in range(len(recordings))]
    for path, samples in zip(paths, recordings, strict=True):
        soundfile.write(path, samples, RATE)
    return paths
