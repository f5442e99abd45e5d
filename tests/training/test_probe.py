"""The largest batch that fits, on a machine with little memory."""

import re
from pathlib import Path

import pytest
import torch

from asrtool.errors import UserError
from asrtool.training import probe as module
from asrtool.training.step import batch_loss
from tests.training.ranks import run_on_ranks

WIDE = {"model": {"dim": 256, "ff_dim": 1024, "layers": 2, "heads": 4}, "data": {"max_seconds": 10.0}}


def probe_with(config, more, *then):
    """Probe where only `more` bytes may be had; whether a step with batches of `then` times the answer fits."""
    room = module._process_status("VmRSS") + more
    module._max_memory = lambda _: room
    message = module.probe_batch_seconds(config, "cpu")
    seconds = int(re.match(r"data\.batch_seconds=(\d+) fits", message)[1])
    attempt = module.Prober(config, torch.device("cpu"), room, Path(config.data.tokenizer).parent)
    return message, [attempt(factor * seconds).fits for factor in then]


@pytest.mark.slow
def test_the_found_batch_size_fits_a_larger_one_does_not_and_it_grows_with_the_memory(tiny_config):
    """A fifth less and more: fragments make the limit uneven."""
    answers = [
        run_on_ranks(1, probe_with, tiny_config(**WIDE), more, 0.8, 1.4)[0] for more in (200_000_000, 450_000_000)
    ]
    assert [fits for _, fits in answers] == [[True, False]] * 2
    matches = [
        re.fullmatch(r"data\.batch_seconds=(\d+) fits \(.* GB\); (\d+) does not", message) for message, _ in answers
    ]
    small, large = (int(match[1]) for match in matches)
    assert large > 1.5 * small and all(int(match[2]) < 1.2 * int(match[1]) for match in matches)


def test_a_model_for_which_not_one_cut_fits_is_an_error(tiny_config):
    with pytest.raises(UserError, match="not even one cut of data.max_seconds=10 fits"):
        run_on_ranks(1, probe_with, tiny_config(**WIDE), 1_000_000)


def broken(config):
    """A probe in which something else than memory is wrong."""

    def fails(*_):
        raise RuntimeError("something else")

    module.batch_loss = fails
    module.probe_batch_seconds(config, "cpu")


def test_an_error_that_is_not_about_memory_is_raised(tiny_config):
    with pytest.raises(RuntimeError, match="something else"):
        run_on_ranks(1, broken, tiny_config(**WIDE))


def test_a_slow_step_ends_the_search(tiny_config):
    (message,) = run_on_ranks(1, hasty, tiny_config(**WIDE))
    assert "more was not tried, since a step takes" in message


def hasty(config):
    """Any step takes too long."""
    module.MAX_STEP_SECONDS = 0.0
    return module.probe_batch_seconds(config, "cpu")


@pytest.mark.parametrize("kind", ["mmi", "ce"])
def test_the_configured_objective_is_measured(tiny_config, tmp_path, monkeypatch, kind):
    """Words of the training data as targets, a label for each frame."""
    seen = []
    monkeypatch.setattr(module, "batch_loss", lambda *given: seen.append(given) or batch_loss(*given))
    config = tiny_config(objective={"kind": kind})
    trial = module.Prober(config, torch.device("cpu"), 10**9, tmp_path).step(20.0, 5.0)
    (_, batch, _, _, objective), loss = seen[0], batch_loss(*seen[0])
    assert trial.fits and str(objective).startswith(kind) and torch.isfinite(loss).all()
    assert batch.target_lens.min() > 0 and batch.labels.shape == batch.features.shape[:2]
