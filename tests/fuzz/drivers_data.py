"""Drivers of the readers of data: tables, Kaldi folders, manifests, audio, stored features."""

import gzip
import math
from pathlib import Path

import soundfile

from asrtool.data.audio import inspect_mono_audio
from asrtool.data.corpora import choose_speakers
from asrtool.data.features import load_features, load_samples
from asrtool.data.kaldi_alignments import read_kaldi_alignments
from asrtool.data.kaldi_folder import read_kaldi
from asrtool.data.lhotse_objects import read_cut
from asrtool.data.shards import entries_with_dicts
from asrtool.text.kaldi_model import read_transition_pdfs
from tests.fuzz import material
from tests.fuzz.driver import Driver, Wrong
from tests.fuzz.material import asrtool, build
from tests.kaldi_files import THREE_STATES, binary_archive, binary_model, text_archive, text_model, write_alignments
from tests.tiny import RATE, tone

BINS = 20  # of features, as in tests/tiny.py


def require(holds: bool, problem: str) -> None:
    """Raises Wrong unless `holds`."""
    if not holds:
        raise Wrong(problem)


def _table_seeds(folder: Path) -> list[Path]:
    material.copy(folder, *material.audio())
    rows = ["audio|id|text|speaker|start|end", "a.flac|u1|one two|x||", "b.wav|u2|two|y|0.1|0.5", "c.ogg|u3|four|x||"]
    for name, mark in (("t.csv", ","), ("t.tsv", "\t"), ("semicolon.csv", ";")):
        (folder / name).write_text("\n".join(rows).replace("|", mark) + "\n", encoding="utf-8")
    return [folder / "t.csv", folder / "t.tsv", folder / "semicolon.csv"]


def _kaldi_seeds(folder: Path) -> list[Path]:
    wavs = material.copy(folder, *material.audio())
    content = {
        "wav.scp": [f"r{n} {path}" for n, path in enumerate(wavs)],
        "segments": ["u0 r0 0.1 0.4", "u1 r1 0 0.3", "u2 r2 0.2 0.5"],
        "text": ["u0 one two", "u1 three", "u2 four one"],
        "utt2spk": ["u0 x", "u1 y", "u2 x"],
    }
    for name, lines in content.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [folder / name for name in content]


def _alignment_seeds(folder: Path) -> list[Path]:
    _kaldi_seeds(folder)
    model = [([1, 2], THREE_STATES)], [(phone, state, 3 * phone + state) for phone in (1, 2) for state in range(3)]
    archives = [
        form({f"u{n}": [2, 1, 4, 6, 8, 7, 10, 12] * 4}) for n, form in enumerate((binary_archive, text_archive))
    ]
    write_alignments(folder / "ali", binary_model(*model), *archives, compress=False)
    (folder / "ali" / "text.mdl").write_bytes(text_model(*model))
    return sorted(path for path in (folder / "ali").iterdir())


def _read_alignments(path: Path) -> None:
    if path.suffix == ".mdl":
        read_transition_pdfs(path)
    pdfs = read_kaldi_alignments(path.parent).pdfs
    require(all(row.min(initial=0) >= 0 for row in pdfs.values()), "pdfs below 0")


def _lhotse_seeds(folder: Path) -> list[Path]:
    from lhotse import CutSet

    cuts = CutSet.from_file(material.manifest())
    folder.mkdir(parents=True, exist_ok=True)
    recordings, supervisions, _ = cuts.decompose(verbose=False)
    cuts.to_file(folder / "cuts.jsonl")
    recordings.to_file(folder / "recordings.jsonl")
    supervisions.to_file(folder / "supervisions.jsonl.gz")
    return [folder / "cuts.jsonl", folder / "recordings.jsonl", folder / "supervisions.jsonl.gz"]


def _read_lhotse(path: Path) -> None:
    parts = ("--recordings", path.parent / "recordings.jsonl", "--supervisions", path.parent / "supervisions.jsonl.gz")
    asrtool("prepare", "lhotse", "out.jsonl.gz", *(("--cuts", path) if path.stem == "cuts" else parts))


def _manifest_seeds(folder: Path) -> list[Path]:
    (packed,) = material.copy(folder, material.manifest())
    (folder / "plain.jsonl").write_bytes(gzip.decompress(packed.read_bytes()))
    return [packed, folder / "plain.jsonl"]


def _read_manifest(path: Path) -> None:
    for entry, _ in entries_with_dicts(path):
        features = load_features(read_cut(entry), "on_the_fly", BINS)
        require(bool(features.isfinite().all()), "features that are not finite")


def _decode_manifest(path: Path) -> None:
    asrtool("decode", material.experiment(), path, "--workers", 0, "--device", "cpu")


def _audio_seeds(folder: Path) -> list[Path]:
    samples = tone(500, 0.4)
    names = {"a.wav": "PCM_16", "float.wav": "FLOAT", "law.wav": "ULAW", "a.flac": None, "a.ogg": None, "a.mp3": None}
    for name, subtype in names.items():
        soundfile.write(folder / name, samples, RATE, subtype)
    soundfile.write(folder / "a.sph", samples, RATE, format="NIST")
    return [folder / name for name in (*names, "a.sph")]


def _read_audio(path: Path) -> None:
    from lhotse import Recording
    from lhotse.audio import AudioSource

    rate, samples = inspect_mono_audio(str(path))[:2]
    require(rate > 0 and samples > 0, "no samples")
    source = AudioSource("file", [0], str(path))
    cut = Recording("a", [source], rate, samples, samples / rate).to_cut()
    require(bool(load_samples(cut).isfinite().all()), "samples that are not finite")


def _stored_seeds(folder: Path) -> list[Path]:
    build("features", material.manifest(), folder / "fb.jsonl.gz", "--num-bins", BINS, "--jobs", 1)
    return [*folder.rglob("*.lca"), folder / "fb.jsonl.gz"]


def _read_stored(path: Path) -> None:
    for entry, _ in entries_with_dicts(next(iter(path.parents[2].glob("fb.jsonl.gz")), path)):
        require(bool(load_features(read_cut(entry), "stored", BINS).isfinite().all()), "features that are not finite")


def _speaker_seeds(folder: Path) -> list[Path]:
    _kaldi_seeds(folder)
    (folder / "speakers.txt").write_text("x\ny\n", encoding="utf-8")
    return [folder / "speakers.txt"]


def _read_speakers(path: Path) -> None:
    chosen = list(choose_speakers(read_kaldi(path.parent), str(path), None))
    require(all(math.isfinite(u.start) for u in chosen), "a start that is not finite")


DRIVERS = [
    Driver("table", _table_seeds, lambda path: asrtool("prepare", "table", path, "out.jsonl.gz")),
    Driver("kaldi", _kaldi_seeds, lambda path: asrtool("prepare", "kaldi", path.parent, "out.jsonl.gz")),
    Driver("kaldi-alignments", _alignment_seeds, _read_alignments),
    Driver("lhotse", _lhotse_seeds, _read_lhotse),
    Driver("manifest", _manifest_seeds, _read_manifest),
    Driver("decode", _manifest_seeds, _decode_manifest),
    Driver("audio", _audio_seeds, _read_audio),
    Driver("stored-features", _stored_seeds, _read_stored),
    Driver("speakers", _speaker_seeds, _read_speakers),
]
