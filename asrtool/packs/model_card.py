"""The model card of a pack, README.md, and the same facts as lines for a terminal (Mitchell et al. 2019)."""

from asrtool.pack_manifest import Manifest, Result
from asrtool.provenance import describe_provenance
from asrtool.scoring.markdown import markdown_table
from asrtool.scoring.results import describe_hardware, format_error_rate

FRAME_MS = 10  # of a feature frame
NOT_STATED = "not stated"


def manifest_lines(manifest: Manifest) -> dict[str, str]:
    """Returns the facts of a pack as text, by name, for `asrtool info`."""
    results = {f"{r.set}, {_method(r)}": _result_line(r) for r in untagged_results(manifest)}
    lines = model_facts(manifest) | training_facts(manifest) | search_facts(manifest) | results
    return lines | {"licence": manifest.licence or NOT_STATED, "size": _size(manifest)}


def model_facts(manifest: Manifest) -> dict[str, str]:
    """Returns what the model is, and what audio it needs."""
    features, units = manifest.features, manifest.units
    return {
        "name": manifest.name,
        "parameters": f"{manifest.parameters:,}",
        "units": f"{units.count:,} ({units.type}), blank included",
        "audio": f"{features.sampling_rate:,} Hz, {features.num_bins} log-mel bins",
        "output frame": f"{1000 * features.output_frame_seconds:g} ms",
        "latency": _latency(manifest),
    }


def _latency(manifest: Manifest) -> str:
    if not manifest.latency:
        return "the whole utterance; it cannot stream"
    frames = manifest.latency.chunk + manifest.latency.right
    return f"{FRAME_MS * frames} ms at most, {FRAME_MS * (frames - manifest.latency.chunk / 2):g} ms on average"


def training_facts(manifest: Manifest) -> dict[str, str]:
    """Returns how the model was trained."""
    training = manifest.training
    amount = "hours not stated"
    if training.data_hours is not None:
        amount = f"{training.data_hours:.1f} hours, {training.data_utterances:,} utterances"
    seen = "-" if training.seen_hours is None else f"{training.seen_hours:.1f} hours of audio, repetitions included"
    steps = "" if training.steps is None else f", {training.steps:,} steps"
    revision = ", ".join(dict.fromkeys(map(describe_provenance, training.starts))) or "-"
    return {
        "objective": training.objective,
        "training data": f"{training.data}, {amount}",
        "training": f"{seen}{steps}{'' if training.finished else ', not finished'}",
        "checkpoint": training.checkpoint,
        "trained by": revision,
        "packed by": f"asrtool {manifest.versions.get('asrtool', '-')}, {describe_provenance(manifest.provenance)}",
    }


def search_facts(manifest: Manifest) -> dict[str, str]:
    """Returns the searches that the pack has files for, and their default options."""
    carried = manifest.carried.model_dump(exclude_none=True)
    options = {method: values for method, values in manifest.options.by_method().items() if values}
    shown = [f"{method}: {', '.join(f'{k} {v}' for k, v in values.items())}" for method, values in options.items()]
    return {
        "default method": manifest.default_method,
        "carries": ", ".join(name.replace("_", " ") for name in carried) or "nothing but the model",
        "default options": "; ".join(shown) or "none",
    }


def _method(result: Result) -> str:
    return f"{result.method} (streaming)" if result.command == "stream" else result.method


def _result_line(result: Result) -> str:
    unit = "" if result.score.get("token_type") == "phones" else "WER "
    return f"{unit}{format_error_rate(_score(result))} %, RTF {_rtf(result)} on {_hardware(result)}"


def untagged_results(manifest: Manifest) -> list[Result]:
    """Returns the results without a tag: tags are for comparisons of options, which say little of the model."""
    return [result for result in manifest.results if "-" not in result.method]


def _counted(result: Result) -> str:
    """Returns what the error rate counts, e.g. "8,716 words"."""
    score = _score(result)
    return f"{score['words']['length']:,} {score['token_type']}"


def _rate(result: Result) -> str:
    return format_error_rate(_score(result)).removeprefix("PER ")


def _score(result: Result) -> dict:
    return {"token_type": "words"} | result.score


def _rtf(result: Result) -> str:
    return f"{result.facts['rtf']:.4f}" if "rtf" in result.facts else "-"


def _hardware(result: Result) -> str:
    if "device" not in result.facts:
        return "-"
    return describe_hardware(result.facts) if "batch_seconds" in result.facts else result.facts["device"]


def _size(manifest: Manifest) -> str:
    total = sum(entry.bytes for entry in manifest.hashes.values())
    return f"{total / 1e6:,.1f} MB in {len(manifest.hashes)} files"


def model_card(manifest: Manifest) -> str:
    """Returns the text of README.md."""
    facts = model_facts(manifest) | training_facts(manifest) | search_facts(manifest) | {"size": _size(manifest)}
    parts = [
        f"# {manifest.name}",
        _summary(manifest),
        "## Use\n\n```bash\nasrtool info .                  # the facts below\n"
        "asrtool transcribe . talk.wav   # the text of a recording\n"
        "asrtool decode . test.jsonl.gz --method " + manifest.default_method + " --out results\n```",
        "## Facts",
        markdown_table(["", ""], ([name, value] for name, value in facts.items())),
        "## Results",
        _results(manifest),
        "## Limits",
        "\n".join(f"- {line}" for line in limits(manifest)),
        "## Licence",
        manifest.licence or f"The licence is {NOT_STATED}: ask whoever gave you this pack before you use it.",
    ]
    return "\n\n".join(parts) + "\n"


def _summary(manifest: Manifest) -> str:
    rate = f"{manifest.features.sampling_rate:,} Hz"
    streams = "It can stream." if manifest.latency else "It recognises whole utterances and cannot stream."
    return (
        f"An acoustic model for speech recognition with {manifest.parameters / 1e6:.1f} million parameters, for audio "
        f"of {rate}. {streams} The folder is a pack of asrtool and needs nothing outside itself; `model.json` lists "
        "its files with their sha256."
    )


def _results(manifest: Manifest) -> str:
    """Returns the table of results, or that there are none."""
    if not manifest.results:
        return "The experiment had not been scored when it was packed."
    results = untagged_results(manifest)
    if not results:
        return "The experiment has results with a tag only (`asrtool decode --tag`); model.json has them."
    head = ["set", "counted", "method", "error rate in % and its 95 % interval", "RTF", "hardware"]
    rows = [[r.set, _counted(r), _method(r), _rate(r), _rtf(r), _hardware(r)] for r in results]
    note = "Intervals are 95 % bootstrap intervals over utterances. RTF is processing time divided by audio."
    return f"{markdown_table(head, rows)}\n\n{note}"


def limits(manifest: Manifest) -> list[str]:
    """Returns what the model cannot do, as far as its files tell."""
    rate = manifest.features.sampling_rate
    lines = [
        f"It was trained on utterances of at most {manifest.training.longest_seconds:g} s; longer audio should be cut "
        "at pauses.",
        f"It was trained on audio of {rate:,} Hz: audio of a lower rate lacks frequencies that it expects.",
    ]
    if not manifest.latency:
        lines.append("It needs a whole utterance before it outputs anything.")
    if manifest.units.output_type == "phones":
        lines.append("Its units are phones: only graph search, with a graph, outputs words.")
    if manifest.carried.graph:
        lines.append("Graph search outputs words of its vocabulary only.")
    lines.append("Errors on speakers, accents, noise and topics that the training data lacks are not measured.")
    return lines
