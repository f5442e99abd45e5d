"""Many recordings into files or to standard output, with a stand-in for the model."""

import json
import os
import shutil
from pathlib import Path

import pytest

from asrtool.data.audio_blocks import open_recording
from asrtool.data.sources import InvalidEntry
from asrtool.errors import DataError, UserError
from asrtool.inference.output_plan import OutputOptions, output_options
from asrtool.inference.recordings import STDIN, find_recordings
from asrtool.inference.results import Segment, Transcript, Word
from asrtool.inference.transcribe import transcribe_to_files, transcribe_to_stdout
from tests.faults.commands import temporary


class StandIn:
    """Recognises the number of the channel, and the length of the recording; counts what it was asked for."""

    def __init__(self, failing: str = "", error: BaseException | None = None):
        self.asked: list[tuple[str, int | str]] = []
        self.failing = failing
        self.error = error

    def transcribe(self, source, *, channel="mix", on_progress=None):
        self.asked.append((Path(source).name, channel))
        recording = open_recording(source)
        seconds = sum(map(len, recording.blocks(16000, channel))) / 16000
        if self.failing and self.failing in str(source):
            raise self.error
        if on_progress:
            on_progress(seconds)
        segments = list(self.segments(source, channel=channel))
        return Transcript(str(source), seconds, segments, "greedy", None if channel == "mix" else channel)

    def segments(self, source, *, channel="mix"):
        open_recording(source)
        for number in range(2):
            yield Segment(number, number + 0.5, [Word(f"{channel}", number, number + 0.5, 0.5)], 0.5)
            if self.failing and self.failing in str(source):
                raise self.error


@pytest.fixture
def audio(tmp_path, write_audio):
    """audio("sub/a.wav") writes a recording below tmp_path and returns its path."""
    return lambda name, channels=1: write_audio(tmp_path / name, seconds=1.0, channels=channels)


SETTINGS = {"method": "greedy", "weights": "abc"}


def to_files(paths, model=None, settings=SETTINGS, **options):
    return transcribe_to_files(model or StandIn(), find_recordings(paths), OutputOptions(**options), settings)


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name[0] != "."}


def test_files_are_written_beside_each_recording(tmp_path, audio):
    audio("talks/a.wav")
    audio("talks/sub/b.flac")
    line = to_files([tmp_path / "talks"], formats=("txt", "textgrid"))
    assert files(tmp_path / "talks") - {"a.wav", "sub/b.flac"} == {"a.txt", "a.TextGrid", "sub/b.txt", "sub/b.TextGrid"}
    assert (tmp_path / "talks" / "a.txt").read_text() == "mix\nmix\n"
    assert line.startswith("2 recordings: 2 s of audio in ")


def test_an_output_folder_keeps_the_sub_folders_of_a_given_folder(tmp_path, audio):
    audio("talks/sub/a b.wav")
    single = audio("elsewhere/c.wav")
    to_files([tmp_path / "talks", single], folder=tmp_path / "new" / "out", formats=("ctm",))
    assert files(tmp_path / "new" / "out") == {"sub/a b.ctm", "c.ctm"}
    assert (tmp_path / "new" / "out" / "sub" / "a b.ctm").read_text().startswith("sub/a_b 1 0.000 0.500 mix 0.5000\n")


def test_each_channel_has_files_of_its_own(tmp_path, audio):
    to_files([audio("a.wav", channels=2), audio("b.wav")], channel="each", folder=tmp_path / "out")
    assert files(tmp_path / "out") == {"a.channel0.txt", "a.channel1.txt", "b.channel0.txt"}
    assert (tmp_path / "out" / "a.channel1.txt").read_text() == "1\n1\n"


def test_a_rerun_skips_what_is_done(tmp_path, audio):
    paths = [audio("a.wav"), audio("b.wav")]
    to_files(paths)
    model = StandIn()
    assert to_files(paths, model) == "nothing to transcribe, 2 done before"
    audio("c.wav")
    line = to_files([*paths, tmp_path / "c.wav"], model)
    assert model.asked == [("c.wav", "mix")] and line.startswith("1 recording, 2 done before: ")


def test_channels_of_a_recording_have_its_name_in_a_ctm(tmp_path, audio):
    to_files([audio("calls/call.wav", channels=2)], channel="each", formats=("ctm",))
    lines = [(tmp_path / f"calls/call.channel{n}.ctm").read_text().splitlines()[0] for n in (0, 1)]
    assert [line.split()[:2] for line in lines] == [["call", "1"], ["call", "2"]]
    to_files([tmp_path / "calls"], channel="each", formats=("ctm",), folder=tmp_path / "out")
    assert (tmp_path / "out" / "call.channel1.ctm").read_text() == (tmp_path / "calls/call.channel1.ctm").read_text()


def test_edited_outputs_are_done_and_named_in_one_line(tmp_path, audio, capsys):
    paths = [audio(f"{name}.wav") for name in "abc"]
    to_files(paths)
    assert "were edited" not in capsys.readouterr().err
    for name in "ac":
        (tmp_path / f"{name}.txt").write_text("corrected")
    assert to_files(paths) == "nothing to transcribe, 3 done before"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "were edited" in line]
    assert line.endswith(f"left as they are, since they were edited: {tmp_path}/a.txt; {tmp_path}/c.txt")
    assert (tmp_path / "c.txt").read_text() == "corrected"


def test_only_missing_formats_are_written_and_edited_files_stay(tmp_path, audio):
    path = audio("a.wav")
    to_files([path])
    (tmp_path / "a.txt").write_text("corrected")
    to_files([path], formats=("txt", "srt"))
    assert (tmp_path / "a.txt").read_text() == "corrected" and (tmp_path / "a.srt").exists()


def test_changed_settings_recordings_and_channels_are_done_again_with_a_line(tmp_path, audio, write_audio, capsys):
    path = audio("a.wav")
    to_files([path], formats=("txt", "srt"))
    for change in ({"settings": SETTINGS | {"beam": 4}}, {"channel": 0}):
        model = StandIn()
        to_files([path], model, **{"formats": ("txt", "srt"), **change})
        assert len(model.asked) == 1
    write_audio(path, seconds=2.0)
    to_files([path], channel=0, formats=("txt", "srt"))
    again = [line.split(": ", 1)[1] for line in capsys.readouterr().err.splitlines() if "again, since" in line]
    assert again == [
        "again, since beam was not given: a.txt, a.srt",
        "again, since beam was 4, channel was mix: a.txt, a.srt",
        "again, since the recording has changed: a.txt, a.srt",
    ]


def test_nothing_is_replaced_by_mistake_and_nothing_is_begun(tmp_path, audio):
    paths = [audio("a.wav"), audio("b.wav")]
    (tmp_path / "b.txt").write_text("a reference transcript")
    model = StandIn()
    with pytest.raises(UserError, match="b.txt was not written by asrtool: nothing was replaced; .*--overwrite"):
        to_files(paths, model)
    assert not model.asked and (tmp_path / "b.txt").read_text() == "a reference transcript"
    to_files(paths, model, overwrite=True)
    assert (tmp_path / "b.txt").read_text() == "mix\nmix\n"
    assert to_files(paths) == "nothing to transcribe, 2 done before"


@pytest.mark.parametrize("names", [("a.wav", "a.mp3"), ("x/a.wav", "y/a.wav")])
def test_two_recordings_of_one_output_are_an_error_before_anything_starts(tmp_path, audio, names):
    model = StandIn()
    paths = [audio(name) for name in names]
    with pytest.raises(UserError, match="would both be written to .*a.txt"):
        to_files(paths, model, folder=tmp_path / "out")
    assert not model.asked and not (tmp_path / "out").exists()


def test_recordings_that_differ_in_their_suffix_only_can_keep_it(tmp_path, audio):
    to_files([audio("a.wav"), audio("a.mp3")], keep_suffix=True)
    assert {"a.wav.txt", "a.mp3.txt"} < files(tmp_path)


def test_an_output_is_never_a_recording(tmp_path, audio):
    path = Path(shutil.copy(audio("x.wav"), tmp_path / "a.txt"))
    shutil.copy(path, tmp_path / "a")
    with pytest.raises(UserError, match="is a recording and the output of"):
        to_files([tmp_path / "a", path], overwrite=True)


def test_results_of_another_recording_in_the_same_folder_are_kept(tmp_path, audio, write_audio):
    to_files([audio("x/a.wav")], folder=tmp_path / "out")
    other = write_audio(tmp_path / "y" / "a.wav", seconds=1.5)
    with pytest.raises(UserError, match=r"out/a.txt is the output of .*x/a.wav"):
        to_files([other], folder=tmp_path / "out")


@pytest.mark.parametrize(
    "error", [InvalidEntry("bad"), DataError("stopped", ["b.wav: not finite"]), OSError(5, "I/O error")]
)
def test_a_recording_that_fails_is_named_and_the_others_go_on(tmp_path, audio, error):
    paths = [audio("a.wav"), audio("b.wav"), audio("c.wav")]
    with pytest.raises(DataError) as raised:
        to_files(paths, StandIn("b.wav", error))
    assert raised.value.exit_status == 1
    assert raised.value.summary == "1 of 3 recordings could not be transcribed; the others are done"
    (problem,) = raised.value.problems
    assert problem.startswith(f"{paths[1]}: ")
    assert {"a.txt", "c.txt"} < files(tmp_path) and not (tmp_path / "b.txt").exists()
    assert to_files(paths).startswith("1 recording, 2 done before")


@pytest.mark.parametrize("error", [UserError("a search process was killed"), KeyboardInterrupt(), MemoryError()])
def test_what_is_wrong_with_the_whole_ends_the_command_and_keeps_what_is_done(tmp_path, audio, error):
    paths = [audio("a.wav"), audio("b.wav"), audio("c.wav")]
    with pytest.raises(type(error)):
        to_files(paths, StandIn("b.wav", error))
    assert (tmp_path / "a.txt").exists() and not (tmp_path / "b.txt").exists() and not temporary(tmp_path)
    assert to_files(paths).startswith("2 recordings, 1 done before")


def test_a_name_that_is_too_long_for_its_output_is_a_problem_of_this_recording(tmp_path, audio):
    paths = [audio("a.wav"), audio("b" * 250 + ".wav")]
    with pytest.raises(DataError, match="File name too long"):
        to_files(paths, formats=("textgrid",))
    assert (tmp_path / "a.TextGrid").exists()


def test_an_output_folder_that_cannot_be_written_is_an_error_before_anything_starts(tmp_path, audio):
    (tmp_path / "file").write_text("")
    model = StandIn()
    with pytest.raises(UserError, match="file is not a folder"):
        to_files([audio("a.wav")], model, folder=tmp_path / "file" / "out")
    with pytest.raises(
        UserError, match="--output-dir /proc/x: nothing can be written in /proc .*; name another folder"
    ):
        to_files([tmp_path / "a.wav"], model, folder=Path("/proc/x"))
    assert not model.asked and files(tmp_path) == {"a.wav", "file"}


def test_a_stream_needs_an_output_folder_and_one_reading():
    stream = find_recordings([STDIN])
    with pytest.raises(UserError, match="standard input has no folder for its outputs"):
        transcribe_to_files(StandIn(), stream, OutputOptions(), SETTINGS)
    with pytest.raises(UserError, match="--channel each cannot read standard input"):
        transcribe_to_files(StandIn(), stream, OutputOptions(channel="each", folder=Path("out")), SETTINGS)


def written(paths, model=None, options=None):
    """Returns what goes to standard output."""
    texts = []
    options = options or OutputOptions(to_stdout=True)
    transcribe_to_stdout(model or StandIn(), find_recordings(paths), options, texts.append)
    return texts


def test_standard_output_has_a_line_for_each_segment_as_soon_as_it_is_there(audio):
    assert written([audio("a.wav")]) == ["mix\n", "mix\n"]


def test_several_recordings_have_headings_on_standard_output(audio):
    one, other = audio("a.wav"), audio("new\nline.wav")
    heading = str(other).replace("\n", " ")
    assert "".join(written([one, other])) == f"==> {one} <==\nmix\nmix\n\n==> {heading} <==\nmix\nmix\n"


def test_one_format_may_go_to_standard_output(audio):
    (text,) = written([audio("a.wav")], options=OutputOptions(formats=("json",), channel=0, to_stdout=True))
    assert json.loads(text)["channel"] == 0


def test_an_error_of_a_recording_leaves_standard_output_to_the_others(audio):
    paths = [audio("a.wav"), audio("b.wav")]
    texts = []
    with pytest.raises(DataError, match="1 of 2 recordings"):
        model = StandIn("a.wav", InvalidEntry(f"truncated: {paths[0]}"))
        transcribe_to_stdout(model, find_recordings(paths), OutputOptions(to_stdout=True), texts.append)
    assert texts[-2:] == ["mix\n", "mix\n"]


def test_a_closed_standard_output_is_not_an_error_of_a_recording(audio):
    def closed(_):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        transcribe_to_stdout(StandIn(), find_recordings([audio("a.wav")]), OutputOptions(to_stdout=True), closed)


def test_where_the_text_goes(audio):
    file, stream = find_recordings([audio("a.wav")]).recordings, find_recordings([STDIN]).recordings
    assert output_options(file, (), None) == OutputOptions(to_stdout=True)
    assert output_options(file, ("srt",), None) == OutputOptions(("srt",))
    assert output_options(file, (), Path("out")) == OutputOptions(folder=Path("out"))
    assert output_options(file, ("srt",), STDIN) == OutputOptions(("srt",), to_stdout=True)
    assert output_options(stream, ("srt",), None) == OutputOptions(("srt",), to_stdout=True)
    assert output_options(stream, ("srt",), Path("out")) == OutputOptions(("srt",), Path("out"))


def test_standard_output_holds_one_text(audio):
    one = find_recordings([audio("a.wav")]).recordings
    two = find_recordings([audio("a.wav"), audio("b.wav")]).recordings
    with pytest.raises(UserError, match="holds one format, not txt and srt"):
        output_options(one, ("txt", "srt"), STDIN)
    with pytest.raises(UserError, match="--format srt has one recording in a file"):
        output_options(two, ("srt",), STDIN)
    with pytest.raises(UserError, match="--channel each has several texts"):
        output_options(one, (), None, "each")


def test_names_that_are_not_utf8_are_read_and_written(tmp_path, audio, capsys):
    name = os.fsdecode(b"caf\xe9.wav")
    (tmp_path / "talks").mkdir()
    path = Path(shutil.copy(audio("a.wav"), tmp_path / "talks" / name))
    to_files([path], formats=("txt", "json", "ctm"))
    assert (tmp_path / "talks" / os.fsdecode(b"caf\xe9.txt")).exists()
    assert to_files([path], formats=("txt", "json", "ctm")) == "nothing to transcribe, 1 done before"
    "".join(written([path, tmp_path / "a.wav"])).encode("utf-8")
