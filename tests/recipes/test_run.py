"""A recipe that `asrtool new` has written runs from the corpus to error rates, without an edit."""

import subprocess

from asrtool.recipes import create
from tests.egs.recipes import LINE, environment
from tests.recipes.layouts import TinyCorpus, texts


def test_a_new_recipe_runs_as_it_is(tmp_path, asr, monkeypatch) -> None:
    monkeypatch.setattr(create, "measure_speed", lambda *_: 80.0)
    source = tmp_path / "corpus"
    source.mkdir()
    texts(TinyCorpus(tmp_path / "tones"), source)
    arguments = ["new", "tones", "--from", source, "--out", tmp_path / "egs", "--speaker-from", "folder"]
    status, output, _ = asr(*arguments)
    folder = tmp_path / "egs/tones"
    assert status == 0 and f"bash {folder}/run.sh" in output
    short = ["--steps", "4", "--lm-order", "0", "--decode", "greedy"]  # graphs are tested in tests/egs
    run = ["bash", folder / "run.sh", *short, "--work", tmp_path / "work"]
    done = subprocess.run(run, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout
    scored = [name for name, _ in LINE.findall(done.stdout)]
    assert scored == ["dev", "test"], done.stdout
