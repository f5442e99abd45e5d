"""The files of `asrtool export --runtime sherpa-onnx` besides the graphs, and facts about them for export.json.

OUT/streaming.onnx  a call of sherpa-onnx's online recogniser, for models that can stream (sherpa_onnx_graph.py)
    model.onnx      whole utterances, for its offline recogniser
    tokens.txt      symbol and number of each unit; <blk> is the blank, and ▁ stands for a space
    HLG.fst         the decoding graph, if there is one; HL.fst if it has no language model
    words.txt       symbol and number of each word of the graph
    README.md       the commands of sherpa-onnx's tools for these files
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from asrtool.data.features import frame_seconds
from asrtool.decoding.graph_options import option_flag
from asrtool.decoding.search_setup import GraphSetup, open_graph
from asrtool.decoding.system_options import search_options, warn_of_unused_weights
from asrtool.errors import UserError
from asrtool.experiment import Experiment
from asrtool.export.sherpa_onnx_graph import tail_padding_frames
from asrtool.files import write_text
from asrtool.graphs.folder import WORDS, write_symbols
from asrtool.graphs.word_costs import change_costs
from asrtool.models.acoustic import BLANK
from asrtool.text.tokenizer import SPACE, Tokenizer

BLANK_SYMBOL = "<blk>"  # by which sherpa-onnx finds the blank
TOKENS = "tokens.txt"
README = "README.md"


def symbols_with_spaces(tokenizer: Tokenizer) -> list[str]:
    """Returns the symbols of the units; whole words and phones get the mark for a space in front, which they lack."""
    blank, *others = tokenizer.symbols
    if not tokenizer.units_are_words:
        return tokenizer.symbols
    return [blank, *(SPACE + symbol for symbol in others)]


def open_search(experiment: Experiment, given: Mapping[str, Path]) -> GraphSetup | None:
    """Returns the decoding graph and its weights; None if there is no graph.

    `given` may have `graph`, a folder of `asrtool graph`, and `decoding_weights`, a file of `asrtool tune`; what it
    lacks is what a pack carries. Raises UserError for files that do not fit the model or each other, or are damaged.
    """
    if not ("graph" in given or experiment.files.graph):
        if given:
            raise UserError("--decoding-weights needs --graph FOLDER; build one with `asrtool graph`")
        return None
    options = search_options(experiment, "graph", given, streaming=True)
    warn_of_unused_weights(experiment, "graph", options)
    setup = open_graph(experiment.tokenizer, options, experiment.config.objective.topology)
    setup.graph.require_intact(setup.graph.meta["kind"])
    return setup


def write_graph(setup: GraphSetup, path: Path) -> None:
    """Writes the graph with all weights of its search inside, since sherpa-onnx has none.

    With the acoustic scale a, asrtool searches -a (log-prob - log-prior - blank penalty) + graph cost + insertion
    penalty. Divided by a, everything but the log-prob is a cost of an arc.
    """
    graph, options, priors, _ = setup
    weights = (options.acoustic_scale, options.blank_penalty, options.insertion_penalty)
    if weights == (1.0, 0.0, 0.0) and priors is None:
        shutil.copyfile(graph.require_intact(graph.meta["kind"]), path)
        return
    units = np.zeros(1 + graph.meta["outputs"])  # costs by input label; label 0 is epsilon
    if priors is not None:
        units[1:] = priors
    units[1 + BLANK] += options.blank_penalty

    def change(inputs: np.ndarray, outputs: np.ndarray, costs: np.ndarray) -> np.ndarray:
        words = (outputs > 0) & (outputs < len(graph.words))
        return (costs + options.insertion_penalty * words) / options.acoustic_scale + units[inputs]

    if not change_costs(graph.fst, change, 1 / options.acoustic_scale).write(str(path)):
        raise OSError(f"OpenFst cannot write {path}")


def write_runtime_files(experiment: Experiment, search: GraphSetup | None, folder: Path) -> dict:
    """Writes all files but the graphs into `folder`; returns the facts for export.json."""
    _, *others = symbols_with_spaces(experiment.tokenizer)
    write_symbols(folder / TOKENS, [BLANK_SYMBOL, *others])
    facts: dict = {"decoding_graph": None}
    if search is not None:
        facts["decoding_graph"] = f"{search.graph.meta['kind']}.fst"
        write_graph(search, folder / facts["decoding_graph"])
        write_symbols(folder / WORDS, search.graph.words)
    if experiment.model.can_stream:
        model = experiment.model
        shift = frame_seconds(experiment.config.features.sampling_rate)
        waiting = model.lead_padding + model.subsampling.factor * model.delay
        facts["tail_padding_seconds"] = round(shift * tail_padding_frames(model), 2)
        facts["timestamps_late_seconds"] = round(shift * waiting, 2)
    write_text(folder / README, _readme(experiment, facts))
    return facts


def require_runtime(given: Mapping[str, Path], runtime: str | None) -> None:
    """Raises UserError for files of graph search without a runtime that searches."""
    for name in given:
        if runtime is None:
            problem = "other exports have the acoustic model only"
            raise UserError(f"{option_flag(name)} needs --runtime sherpa-onnx: {problem}")


def _readme(experiment: Experiment, facts: dict) -> str:
    features = experiment.config.features
    common = f"--tokens={TOKENS} --sample-rate={features.sampling_rate} --feat-dim={features.num_bins}"
    values = {
        "common": common,
        "rate": features.sampling_rate,
        "bins": features.num_bins,
        "graph": facts["decoding_graph"],
        "padding": facts.get("tail_padding_seconds"),
    }
    parts = [INTRODUCTION]
    if experiment.model.can_stream:
        parts.append(STREAMING)
    parts.append(OFFLINE)
    if facts["decoding_graph"]:
        parts.append(GRAPH_OFFLINE if not experiment.model.can_stream else GRAPH)
    return "\n".join(parts).format(**values)


INTRODUCTION = """# A model of asrtool for sherpa-onnx

Written by `asrtool export --runtime sherpa-onnx`. Run the commands in this folder, after
`pip install sherpa-onnx sherpa-onnx-bin`. Files `*.int8.onnx`, if there are any, can be named instead of the others.
"""

STREAMING = """## Streams

```bash
sherpa-onnx --zipformer2-ctc-model=streaming.onnx {common} \\
    --left-padding=0 --right-padding={padding} talk.wav
sherpa-onnx-online-websocket-server --zipformer2-ctc-model=streaming.onnx {common} \\
    --end-tail-padding={padding} --port=6006
sherpa-onnx-online-websocket-client --server-port=6006 talk.wav
```

The last words of a stream come when {padding} s of digital silence have been appended to it, as these commands do.

```python
import numpy
import sherpa_onnx
import soundfile

recognizer = sherpa_onnx.OnlineRecognizer.from_zipformer2_ctc(
    tokens="{tokens}", model="streaming.onnx", sample_rate={rate}, feature_dim={bins}
)
samples, rate = soundfile.read("talk.wav", dtype="float32")
stream = recognizer.create_stream()
stream.accept_waveform(rate, samples)
stream.accept_waveform(rate, numpy.zeros(int({padding} * rate), numpy.float32))
stream.input_finished()
while recognizer.is_ready(stream):
    recognizer.decode_stream(stream)
print(recognizer.get_result(stream))
```
""".replace("{tokens}", TOKENS)

OFFLINE = """## Recordings

```bash
sherpa-onnx-offline --zipformer-ctc-model=model.onnx {common} talk.wav
```

In Python: `sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(model="model.onnx", tokens="{tokens}", sample_rate={rate},
feature_dim={bins})`.
""".replace("{tokens}", TOKENS)

GRAPH_OFFLINE = """## With the decoding graph

`sherpa-onnx-offline` takes `--ctc.graph={graph}`. The result lists the words of the best path by their numbers, which
`words.txt` maps to words; its text has the units.
"""

GRAPH = """## With the decoding graph

`sherpa-onnx` and the server take `--ctc-graph={graph}`, `sherpa-onnx-offline` takes `--ctc.graph={graph}`, and
`from_zipformer2_ctc` takes `ctc_graph="{graph}"`. The result lists the words of the best path by their numbers, which
`words.txt` maps to words; its text has the units.
"""
