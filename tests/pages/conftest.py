"""A tiny experiment with results in two sets."""

import json

import pytest
from lhotse import CutSet

from asrtool.files import write_jsonl
from tests.tiny import make_experiment

EVIL = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>'  # must be shown as it is
LOG = [
    {
        "event": "start",
        "step": 0,
        "time": "2026-01-01T00:00:00+00:00",
        "device": "CPU X",
        "ranks": 1,
        "parameters": 999,
    },
    *({"event": "train", "step": n, "loss": 9 / n, "lr": n / 100, "gradient_norm": 2.0} for n in range(1, 41)),
    *({"event": "dev", "step": n, "loss": 8 / n} for n in range(10, 41, 10)),
    {"event": "finished", "step": 40, "loss": 0.2, "hours": 0.1},
]
LOG[0] |= {"command": f"asrtool train a.yaml --exp '{EVIL}'", "version": "0.1.0"}


def recognised(ref: str, number: int) -> str:
    """Returns a hypothesis: every third one is wrong, by a substitution, a deletion or an insertion in turn."""
    words = ref.split()
    if number % 3:
        return ref
    return " ".join(
        {0: ["four" if words[0] != "four" else "one", *words[1:]], 1: words[1:], 2: [*words, "one"]}[number // 3 % 3]
    )


def hypothesis_row(cut, number: int) -> dict:
    """Returns the row of hyps.jsonl of a cut, with words at even times and confidences."""
    ref = cut.supervisions[0].text
    words = recognised(ref, number).split()
    step = cut.duration / max(1, len(words))
    timed = [
        [word, round(n * step, 3), round((n + 1) * step, 3), 0.5 + 0.04 * (n + number % 5)]
        for n, word in enumerate(words)
    ]
    row = {"id": cut.id, "speaker": cut.supervisions[0].speaker, "ref": ref, "hyp": " ".join(words)}
    return row | {"score": -1.0, "confidence": 0.7, "words": timed, "units": [[w[0], w[1]] for w in timed]}


def add_result(experiment, corpus, name="test", method="greedy", rows=None, **facts):
    """Adds a result of the cuts of `corpus`, by default `hypothesis_row` of each; returns its folder."""
    folder = experiment / "decode" / name / method
    if rows is None:
        rows = [hypothesis_row(cut, number) for number, cut in enumerate(CutSet.from_file(corpus))]
    write_jsonl(folder / "hyps.jsonl", rows)
    facts = {"set": name, "method": method, "options": {"cuts": str(corpus)}} | facts
    (folder / "decode.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def analysed(tiny_config, tokenizer_file, corpus, tmp_path_factory):
    """An experiment with a result of the tiny corpus ("test"), and one whose texts try to break out ("evil")."""
    experiment = make_experiment(tmp_path_factory.mktemp("pages") / "exp", tiny_config(), tokenizer_file)
    write_jsonl(experiment / "log.jsonl", LOG)
    add_result(experiment, corpus)
    rows = [{"id": f"{n}{EVIL}", "speaker": EVIL, "ref": f"one {EVIL}", "hyp": "one two"} for n in range(2)]
    add_result(experiment, corpus, "evil", rows=rows, command=EVIL)
    return experiment
