"""What a shell completes, and the script that `_ASRTOOL_COMPLETE=bash_source asrtool` prints for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from asrtool.cli import cli

ROOT = Path(__file__).parents[2]


def completions(*words: str) -> list[str]:
    """Returns what is offered for the last of these words."""
    complete = ShellComplete(cli, {}, "asrtool", "_ASRTOOL_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


@pytest.mark.parametrize(
    "words, some",
    [
        (["tra"], {"train", "transcribe"}),
        (["lm", "t"], {"train", "train-neural"}),
        (["decode", "--lat"], {"--lattices", "--lattice-beam"}),
        (["decode", "exp", "--method", "g"], {"greedy", "graph"}),
        (["train", "--set", "training.max_s"], {"training.max_steps="}),
        (["train", "--set", "data.augment.spec_augment.time_w"], {"data.augment.spec_augment.time_warp="}),
        (["train", "--set", "model.norm=p"], {"model.norm=pre", "model.norm=post"}),
        (["info", "--set", "model.activation_checkpointing="], {"model.activation_checkpointing=false"}),
    ],
)
def test_commands_options_choices_and_keys_of_the_configuration_are_completed(words, some):
    found = completions(*words)
    assert some <= set(found)
    assert all(value.startswith(words[-1]) for value in found)


def test_a_value_that_may_be_any_number_has_no_completion():
    assert completions("train", "--set", "training.lr=1") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_is_printed(shell):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "_ASRTOOL_COMPLETE": f"{shell}_source"}
    command = [sys.executable, "-m", "asrtool"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"_ASRTOOL_COMPLETE={shell}_complete" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)


def test_bash_completes_a_command_by_the_program_in_path(tmp_path):
    program = tmp_path / "asrtool"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m asrtool "$@"\n')
    program.chmod(0o755)
    script = """
        eval "$(_ASRTOOL_COMPLETE=bash_source asrtool)"
        COMP_WORDS=(asrtool tok) COMP_CWORD=1
        _asrtool_completion asrtool
        echo "${COMPREPLY[@]}"
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "tokenizer\n"
