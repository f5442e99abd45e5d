"""Alignments of Kaldi: archives of both forms, their place in the audio, and damaged files."""

import gzip

import numpy as np
import pytest

from asrtool import readers
from asrtool.data.kaldi_alignments import read_int_vectors, read_kaldi_alignments
from asrtool.data.sources import InvalidEntry
from asrtool.errors import UserError
from tests.kaldi_files import CHAIN, THREE_STATES, binary_archive, binary_model, text_archive, write_alignments

MODEL = binary_model([([1], THREE_STATES)], [(1, 0, 2), (1, 1, 0), (1, 2, 1)])  # transitions 1 to 6: pdfs 2 2 0 0 1 1
VECTORS = {"a-1": [2, 1, 1, 4, 6, 5], "b": [], "c-ü": [6]}
FORMS = pytest.mark.parametrize("form", [binary_archive, text_archive])


def cut(name: str, seconds: float, rate: int = 16000) -> dict:
    """A cut as it is in a manifest."""
    supervisions = [{"id": name, "text": "a"}]
    return {"id": name, "duration": seconds, "supervisions": supervisions, "recording": {"sampling_rate": rate}}


def items(folder, name: str, seconds: float) -> list:
    (supervision,) = read_kaldi_alignments(folder).add_to(cut(name, seconds))["supervisions"]
    assert supervision["text"] == "a"
    return supervision["alignment"]["unit"]


@FORMS
@pytest.mark.parametrize("compress", [True, False])
def test_archives_of_both_forms_have_the_same_vectors(tmp_path, form, compress):
    path = tmp_path / "ali.1.gz"
    path.write_bytes(gzip.compress(form(VECTORS)) if compress else form(VECTORS))
    assert {key: values.tolist() for key, values in read_int_vectors(path)} == VECTORS


@FORMS
def test_transition_ids_become_pdfs_of_all_jobs(tmp_path, form):
    folder = write_alignments(tmp_path, MODEL, form({"a": [2, 1, 4]}), form({"b": [6]}))
    alignments = read_kaldi_alignments(folder)
    assert {name: pdfs.tolist() for name, pdfs in alignments.pdfs.items()} == {"a": [2, 2, 0], "b": [1]}
    assert alignments.subsampling_factor == 1


def test_runs_of_a_pdf_become_items_that_cover_the_cut(tmp_path):
    folder = write_alignments(tmp_path, MODEL, binary_archive(VECTORS))
    assert items(folder, "a-1", 0.06) == [["pdf_2", 0.0, 0.03], ["pdf_0", 0.03, 0.01], ["pdf_1", 0.04, 0.02]]


def test_frames_are_centred_in_the_audio(tmp_path):
    folder = write_alignments(tmp_path, MODEL, binary_archive(VECTORS))
    # with snip_edges, 6 frames of 25 ms every 10 ms need 75 ms; frame t is centred at 12.5 + 10 t ms
    assert items(folder, "a-1", 0.075) == [["pdf_2", 0.0, 0.0375], ["pdf_0", 0.0375, 0.01], ["pdf_1", 0.0475, 0.0275]]


def test_frames_have_the_samples_that_kaldi_gives_them(tmp_path):
    folder = write_alignments(tmp_path, MODEL, binary_archive({"a": [2] * 3000 + [4] * 3000}))
    cut_items = read_kaldi_alignments(folder).add_to(cut("a", 6000 * 220 / 22050, 22050))["supervisions"]
    assert cut_items[0]["alignment"]["unit"] == [["pdf_2", 0.0, 29.932], ["pdf_0", 29.932, 29.9319]]


def test_frames_of_chain_models_are_longer(tmp_path):
    model = binary_model([([1, 2], CHAIN)], [(1, 0, 0, 1), (2, 0, 2, 1)])  # transitions 1 to 4: pdfs 1 0 1 2
    folder = write_alignments(tmp_path, model, binary_archive({"a": [2, 1, 4]}), subsampling_factor=3)
    assert items(folder, "a", 0.09) == [["pdf_0", 0.0, 0.03], ["pdf_1", 0.03, 0.03], ["pdf_2", 0.06, 0.03]]


def test_an_utterance_without_an_alignment_is_bad(tmp_path):
    alignments = read_kaldi_alignments(write_alignments(tmp_path, MODEL, binary_archive(VECTORS)))
    with pytest.raises(InvalidEntry, match="no alignment in .*; Kaldi may have failed"):
        alignments.add_to(cut("other", 1.0))


def test_an_alignment_of_other_audio_is_bad(tmp_path):
    alignments = read_kaldi_alignments(write_alignments(tmp_path, MODEL, binary_archive(VECTORS)))
    with pytest.raises(InvalidEntry, match="the alignment has 6 frames, 0.06 s, and the audio 1.00 s"):
        alignments.add_to(cut("a-1", 1.0))


def test_files_that_are_missing_or_do_not_fit_are_named(tmp_path):
    with pytest.raises(UserError, match="no alignments ali"):
        read_kaldi_alignments(tmp_path)
    folder = write_alignments(tmp_path / "twice", MODEL, binary_archive({"a": [1]}), text_archive({"a": [1]}))
    with pytest.raises(UserError, match="'a' is aligned twice"):
        read_kaldi_alignments(folder)
    for transition in (0, 7, -1):
        folder = write_alignments(tmp_path / f"{transition}", MODEL, binary_archive({"a": [transition]}))
        with pytest.raises(UserError, match="other transition ids than its model .* has 1 to 6"):
            read_kaldi_alignments(folder)
    (folder / "frame_subsampling_factor").write_text("3x")
    folder = write_alignments(folder, MODEL, binary_archive({"a": [1]}))
    with pytest.raises(UserError, match="not a number from 1 to 64"):
        read_kaldi_alignments(folder)
    (folder / "final.mdl").unlink()
    with pytest.raises(UserError, match="model of Kaldi not found"):
        read_kaldi_alignments(folder)


def test_the_bytes_of_an_archive_are_those_of_kaldi(tmp_path):
    # The first frames of what steps/align_fmllr.sh of Kaldi (2026) wrote for an utterance of LibriSpeech
    content = bytes.fromhex(
        "313038382d3133343331352d303030302000420406000000040200000004080000000405000000040500000004050000000405000000"
    )
    path = tmp_path / "ali.1.gz"
    path.write_bytes(gzip.compress(content))
    ((name, transitions),) = read_int_vectors(path)
    assert name == "1088-134315-0000" and transitions.tolist() == [2, 8, 5, 5, 5, 5]
    assert binary_archive({name: transitions.tolist()}) == content


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"key", "ends after a key"),
        (b" \0B\4\0\0\0\0", "a key is empty"),
        (b"two\nlines", "a key does not end with a space"),
        (b"k" * 20_000 + b" 1\n", "a key does not end with a space"),
        (b"a \0B\4\1\0\0\0", "the file ends within it"),
        (b"a \0B\4\1\0", "not a vector of int32"),
        (b"a \0BFM \4\1\0\0\0\1\0\0\0", "not a vector of int32"),  # a matrix
        (b"a \0B\4\1\0\0\0\1\0\0\0\1", "not a vector of int32"),  # no size before its element
        (b"a \0B\4\xff\xff\xff\x7f", "it has 2147483647 elements"),
        (b"a \0B\4\xff\xff\xff\xff", "it has -1 elements"),
        (b"a 1 2", "its line does not end"),
        (b"a 1 x\n", "not a line of transition ids"),
        (b"a 1 2.5\n", "not a line of transition ids"),
        (b"\xff\xfe 1\n", "decode"),
    ],
)
def test_a_damaged_archive_is_refused_with_the_problem(tmp_path, content, problem):
    path = tmp_path / "ali.1.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(UserError, match=problem):
        list(read_int_vectors(path))


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "EXPANSION_FREE_BYTES", 1000)
    path = tmp_path / "ali.1.gz"
    path.write_bytes(gzip.compress(binary_archive({str(number): [1] * 10_000 for number in range(50)})))
    with pytest.raises(UserError, match="unpacks to far more than its size"):
        list(read_int_vectors(path))


def test_a_damaged_compression_is_refused(tmp_path):
    path = tmp_path / "ali.1.gz"
    rows = {str(number): np.random.default_rng(number).integers(1, 7, 99).tolist() for number in range(99)}
    whole = gzip.compress(binary_archive(rows))
    for content in (whole[: len(whole) // 2], whole[:-9] + b"damaged!!"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read"):
            list(read_int_vectors(path))
