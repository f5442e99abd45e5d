"""The stages of a recipe: which stages run, which are skipped, and what a failing stage leaves behind."""

import os
import signal
import subprocess
import time

import pytest

HEAD = """#!/usr/bin/env bash
# A recipe.
set -euo pipefail
cd "$(dirname "$0")"
stage=0 stop_stage=6 force=false size=1 work=work
options="stage stop_stage force size work"
. ../../local/parse_options.sh
. ../../local/stages.sh
recipe=$PWD
setup_stages "$stage" "$stop_stage" "$force"
mkdir -p "$work"
cd "$work"
"""
SCRIPT = (
    HEAD
    + """
if begin_stage 0 "fetch data"; then
    echo ran 0
    finish_stage "the data"
fi
if begin_stage 1 "compute features" "$size"; then
    echo ran 1
    finish_stage "the features"
fi
if begin_stage 4 "train" "$recipe/conf.yaml"; then
    echo ran 4
    finish_stage "the model"
fi
"""
)
FAILING = HEAD + 'if begin_stage 4 "train"; then\n    false\n    echo never\n    finish_stage "the model"\nfi\n'


def stages_that_ran(done):
    """Returns the numbers that the stages of a recipe printed when they ran; it must have succeeded without a word."""
    assert (done.returncode, done.stderr) == (0, "")
    return [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("ran ")]


@pytest.fixture
def recipe(bash, tmp_path):
    """recipe("--stage", "1") -> the numbers of the stages that ran"""
    (tmp_path / "egs/mine/conf.yaml").write_text("lr: 1", encoding="utf-8")

    def run(*options):
        return stages_that_ran(bash(SCRIPT, *options))

    return run


def markers(tmp_path):
    return sorted(path.name for path in (tmp_path / "egs/mine/work/.done").glob("**/stage*"))


def test_each_stage_prints_its_title_and_what_it_wrote(bash, tmp_path):
    (tmp_path / "egs/mine/conf.yaml").touch()
    out = bash(SCRIPT).stdout
    assert "Stage 1: compute features" in out and "Stage 1: wrote the features (" in out
    again = bash(SCRIPT).stdout
    assert "Stage 1: compute features: already done and unchanged; the features" in again and "ran" not in again


def test_stages_that_are_done_and_unchanged_are_skipped(recipe, tmp_path):
    assert recipe() == [0, 1, 4]
    assert markers(tmp_path) == ["stage0", "stage1", "stage4"]
    assert recipe() == []


@pytest.mark.parametrize(
    "options, ran",
    [
        (["--stage", "1"], [1, 4]),
        (["--stop-stage", "1"], [0, 1]),
        (["--stage", "1", "--stop-stage", "1"], [1]),
        (["--stage", "2", "--stop-stage", "3"], []),
    ],
)
def test_only_the_stages_asked_for_run(recipe, options, ran):
    assert recipe(*options) == ran


def test_a_changed_setting_repeats_its_stage_and_all_later_stages(recipe):
    recipe()
    assert recipe("--size", "2") == [1, 4]
    assert recipe("--size", "2") == []
    assert recipe() == [1, 4]


def test_a_setting_changed_in_one_stage_alone_makes_the_later_stages_stale(recipe):
    recipe()
    assert recipe("--size", "2", "--stop-stage", "1") == [1]
    assert recipe("--size", "2") == [4]


def test_a_file_counts_by_its_content(recipe, tmp_path):
    recipe()
    conf = tmp_path / "egs/mine/conf.yaml"
    os.utime(conf, (0, 0))
    assert recipe() == []
    conf.write_text("lr: 2", encoding="utf-8")
    assert recipe() == [4]


@pytest.mark.parametrize("base", ["base: under/base.yaml", "base: [other.yaml, under/base.yaml]  # two"])
def test_the_base_of_a_configuration_counts_too(recipe, tmp_path, base):
    folder = tmp_path / "egs/mine"
    (folder / "under").mkdir()
    for name, text in (("conf", base), ("other", ""), ("under/base", "base: ../root.yaml"), ("root", "seed: 1")):
        (folder / f"{name}.yaml").write_text(f"{text}\n", encoding="utf-8")
    assert recipe() == [0, 1, 4]
    assert recipe() == []
    (folder / "root.yaml").write_text("seed: 2\n", encoding="utf-8")
    assert recipe() == [4]


def test_force_repeats_stages_that_are_done(recipe):
    recipe()
    assert recipe("--force", "true") == [0, 1, 4]
    assert recipe("--force", "true", "--stage", "1", "--stop-stage", "1") == [1]


@pytest.mark.parametrize(
    "options, complaint",
    [
        (["--stage", "9"], "stage '9' is not a number from 0 to 8"),
        (["--stage", "-1"], "stage '-1' is not a number"),
        (["--stop-stage", "ten"], "stage 'ten' is not a number"),
        (["--stage", "1.5"], "is not a number"),
        (["--stage", ""], "is not a number"),
        (["--stage", "4", "--stop-stage", "1"], "--stage 4 is after --stop-stage 1"),
        (["--force", "yes"], "--force is true or false, not 'yes'"),
    ],
)
def test_an_impossible_stage_prints_one_line_and_exits_with_status_2(bash, tmp_path, options, complaint):
    done = bash(SCRIPT, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "egs/mine/work").exists()


def test_a_failing_stage_is_named_leaves_no_marker_and_is_repeated(bash, tmp_path):
    done = bash(FAILING)
    assert done.returncode == 1 and "never" not in done.stdout
    assert "stopped with exit status 1 in stage 4 (train)" in done.stderr
    assert markers(tmp_path) == []
    assert "wrote the model" in bash(FAILING.replace("false\n", "true\n")).stdout
    assert markers(tmp_path) == ["stage4"]


def test_a_stage_that_fails_when_repeated_loses_its_marker(bash, tmp_path):
    bash(FAILING.replace("    false\n", ""))
    assert bash(FAILING, "--force", "true").returncode == 1
    assert markers(tmp_path) == []


def test_a_failure_in_a_pipe_or_with_another_status_stops_the_script(bash, tmp_path):
    assert bash(FAILING.replace("    false\n", "    (exit 7) | cat\n")).returncode == 7
    assert markers(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_exits_with_status_130_and_leaves_no_marker(tmp_path, bash, environment, number):
    script = HEAD + 'if begin_stage 4 "train"; then\n    touch started\n    sleep 20\n    finish_stage "it"\nfi\n'
    bash(script, "--help")  # writes it
    egs = tmp_path / "egs/mine"
    process = subprocess.Popen(
        ["bash", str(egs / "run.sh")],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # the tests may run where it is ignored
    )
    deadline = time.monotonic() + 30
    while not (egs / "work/started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, number)  # as the terminal does: to the script and its child
    _, err = process.communicate(timeout=15)
    assert process.returncode == 130 and "interrupted; the same command continues here" in err
    assert markers(tmp_path) == []


@pytest.mark.parametrize(
    "listed",
    ["base:\n  - other.yaml\n  - under/my base.yaml\nlr: 1", "base:\n- 'other.yaml' # one\n- under/my base.yaml"],
)
def test_bases_on_separate_lines_and_with_spaces_count_too(recipe, tmp_path, listed):
    folder = tmp_path / "egs/mine"
    (folder / "under").mkdir()
    for name, text in (("conf", listed), ("other", ""), ("under/my base", "seed: 1")):
        (folder / f"{name}.yaml").write_text(f"{text}\n", encoding="utf-8")
    assert recipe() == [0, 1, 4]
    assert recipe() == []
    (folder / "under/my base.yaml").write_text("seed: 2\n", encoding="utf-8")
    assert recipe() == [4]


@pytest.mark.parametrize(
    "base", ["base: {folder}/other.yml", "'base': other.yml", "{{base: other.yml, seed: 2}}", "base: &o [other.yml]"]
)
def test_bases_count_however_a_configuration_names_them(recipe, tmp_path, base):
    folder = tmp_path / "egs/mine"
    (folder / "conf.yaml").write_text(base.format(folder=folder) + "\n", encoding="utf-8")
    (folder / "other.yml").write_text("seed: 1\n", encoding="utf-8")
    assert recipe() == [0, 1, 4]
    assert recipe() == []
    (folder / "other.yml").write_text("seed: 3\n", encoding="utf-8")
    assert recipe() == [4]


def test_a_large_file_counts_by_its_size_and_modification_time(recipe, tmp_path):
    conf = tmp_path / "egs/mine/conf.yaml"
    conf.touch()
    os.truncate(conf, 64 << 20)
    assert recipe() == [0, 1, 4]
    assert recipe() == []
    os.utime(conf, (0, 0))
    assert recipe() == [4]
    os.truncate(conf, (64 << 20) + 1)
    os.utime(conf, (0, 0))
    assert recipe() == [4]


LOCKING = HEAD + 'if begin_stage 0 "x"; then\n    finish_stage it\nfi\nlock_work_folder shared\n'


def test_the_lock_of_the_work_folder_can_be_read(bash):
    """NFS refuses shared locks on files that are open for writing alone."""
    done = bash(LOCKING + 'read -r line <&"$stages_lock" || echo "readable"\n')
    assert (done.returncode, done.stderr) == (0, "") and "readable" in done.stdout


def test_a_work_folder_that_cannot_be_locked_is_warned_about_once(bash):
    done = bash(LOCKING.replace('cd "$work"', 'cd "$work"\nflock() { return 71; }'))
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert "warning: the work folder" in done.stderr and "cannot be locked" in done.stderr


def test_configurations_that_name_each_other_are_read_once(recipe, tmp_path):
    folder = tmp_path / "egs/mine"
    for number in range(40):
        (folder / f"{number}.yaml").write_text(f"base: [{number + 1}.yaml, ./{number + 1}.yaml]\n", encoding="utf-8")
    (folder / "40.yaml").write_text("base: ../mine/conf.yaml\n", encoding="utf-8")
    (folder / "conf.yaml").write_text("base: 0.yaml\n", encoding="utf-8")
    assert recipe() == [0, 1, 4]


FOLDER = HEAD.replace("size=1", 'size=1 corpus=""').replace("size work", "size work corpus") + (
    'if begin_stage 0 "data" "$corpus"; then\n    mkdir -p data\n    date +%N >data/train.jsonl.gz\n    echo ran 0\n'
    '    finish_stage "it"\nfi\n'
    'if begin_stage 1 "lang" "$size"; then\n    mkdir -p data/lang exp/a\n    date +%N | tee data/lang/u >exp/a/log\n'
    '    echo ran 1\n    finish_stage "it"\nfi\n'
)


@pytest.fixture
def corpus(tmp_path):
    """A corpus with a Kaldi data folder, recordings and a list of speakers; its path contains a space."""
    folder = tmp_path / "my corpus"
    for name, text in [
        ("train/text", "a ONE"),
        ("train/wav.scp", "a a.wav"),
        ("SPEAKERS.TXT", "a F"),
        ("a.wav", "RIFF"),
    ]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n", encoding="utf-8")
    return folder


@pytest.fixture
def stages(bash, corpus):
    """stages() -> the numbers of the stages that ran, of a recipe that reads `corpus`"""

    def run(*options):
        return stages_that_ran(bash(FOLDER, "--corpus", str(corpus), *options))

    return run


def test_a_corpus_that_is_unchanged_or_only_copied_in_place_is_not_read_again(stages, corpus):
    assert stages() == [0, 1]
    for path in [corpus / "train/text", corpus / "SPEAKERS.TXT", corpus / "train", corpus]:
        os.utime(path, (0, 0))
    (corpus / ".completed").touch()
    assert stages() == []


@pytest.mark.parametrize("name", ["train/text", "train/wav.scp", "SPEAKERS.TXT", "new.tsv", "train/b.wav"])
def test_a_changed_or_new_file_of_a_corpus_repeats_all_stages(stages, corpus, name):
    stages()
    before = (corpus / name).stat() if (corpus / name).exists() else None
    (corpus / name).write_text("a TWO\n", encoding="utf-8")
    if before:  # an edit that keeps the size and the time, too
        os.utime(corpus / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert stages() == [0, 1]
    assert stages() == []


def test_a_removed_file_and_a_renamed_file_are_noticed(stages, corpus):
    stages()
    (corpus / "SPEAKERS.TXT").rename(corpus / "speakers.txt")
    assert stages() == [0, 1]
    (corpus / "speakers.txt").unlink()
    assert stages() == [0, 1]


def test_audio_counts_by_its_size_and_modification_time(stages, corpus):
    stages()
    os.utime(corpus / "a.wav", (0, 0))
    assert stages() == [0, 1]


def test_files_behind_a_link_count_and_a_broken_link_is_ignored(stages, corpus, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/text").write_text("a ONE\n")
    (corpus / "linked").symlink_to(tmp_path / "elsewhere")
    (corpus / "lost").symlink_to(tmp_path / "nowhere")
    stages()
    (tmp_path / "elsewhere/text").write_text("a TWO\n")
    assert stages() == [0, 1]


@pytest.mark.parametrize("place", [".", "data", "data/kaldi"])
def test_files_that_the_recipe_writes_are_not_part_of_a_corpus_in_its_work_folder(bash, tmp_path, place):
    folder = tmp_path / "work" / place
    folder.mkdir(parents=True)
    (folder / "text").write_text("a ONE\n")
    options = ["--corpus", str(folder), "--work", str(tmp_path / "work")]
    assert "ran 0" in bash(FOLDER, *options).stdout
    assert "ran" not in bash(FOLDER, *options).stdout
    (folder / "text").write_text("a TWO\n")
    assert "ran 0" in bash(FOLDER, *options).stdout


def test_a_folder_that_the_recipe_writes_counts_by_its_name(bash, tmp_path):
    script = HEAD + 'mkdir -p exp\nif begin_stage 4 "x" exp; then\n    date +%N >exp/log\n    finish_stage it\nfi\n'
    assert "wrote it" in bash(script).stdout
    assert "already done" in bash(script).stdout


SYSTEMS = HEAD.replace("size=1", "size=1 units=word seed=1").replace("size work", "size units seed work") + (
    'stages_lang=lang_$units stages_experiment=${units}_$seed\n'
    'for number in 1 2 4 5; do\n    settings=("$units" "$seed")\n    if [ $number = 1 ]; then settings=("$size"); fi\n'
    '    if [ $number = 2 ]; then settings=("$units"); fi\n'
    '    if begin_stage $number "stage $number" "${settings[@]}"; then\n'
    '        echo ran $number\n        finish_stage "it"\n    fi\ndone\n'
)  # fmt: skip


@pytest.fixture
def systems(bash):
    """systems("--seed", "2") -> the numbers of the stages that ran, of a recipe with several units and seeds"""

    def run(*options):
        return stages_that_ran(bash(SYSTEMS, *options))

    return run


def test_systems_in_one_work_folder_keep_their_own_markers(systems):
    assert systems() == [1, 2, 4, 5]
    assert systems("--seed", "2") == [4, 5]
    assert systems("--units", "phone") == [2, 4, 5]
    for options in [[], ["--seed", "2"], ["--units", "phone"]]:
        assert systems(*options) == []
    assert systems("--seed", "2", "--force", "true", "--stage", "4", "--stop-stage", "4") == [4]
    assert systems() == [] and systems("--seed", "2") == [5]


def test_data_that_are_prepared_again_make_the_stages_of_all_systems_stale(systems):
    systems()
    systems("--units", "phone")
    assert systems("--size", "2") == [1, 2, 4, 5]
    assert systems() == [1, 2, 4, 5]  # the data are as at first, but all later stages used other data since
    assert systems("--units", "phone") == [2, 4, 5]


def test_units_that_are_made_again_make_the_stages_of_all_their_systems_stale(systems):
    for options in [[], ["--seed", "2"], ["--units", "phone"]]:
        systems(*options)
    assert systems("--force", "true", "--stage", "2", "--stop-stage", "2") == [2]
    assert systems() == systems("--seed", "2") == [4, 5]
    assert systems("--units", "phone") == []
