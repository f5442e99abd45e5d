"""The report of an ablation for tools/ablations.py: a table, the result and a picture of the losses."""

import math
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ablation_definition import PENDING, Ablation, interval, overall_result

from asrtool.files import atomic_path
from asrtool.scoring.markdown import markdown_table, natural_sort_key

if TYPE_CHECKING:
    from ablation_runs import Run

FAILED = ("failed", "diverged")
GRADIENT = "lowest / highest gradient"
OVERVIEW = ("<!-- ablations: overview from here -->", "<!-- ablations: overview to here -->")
PICTURE_HEIGHT = 3  # times the median loss: a loss that diverges must not press the other curves flat


def estimate(values: list[float]) -> str:
    """Returns mean and 95 % interval (Student's t) of the finite values, "0.41 [0.36, 0.46]", and how many are not."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "diverged" if values else "-"
    low, high = interval(finite)
    shown = f"{low:.4g}, {high:.4g}" if math.isfinite(low) else "n/a"
    diverged = len(values) - len(finite)
    return f"{statistics.fmean(finite):.4g} [{shown}]" + (f", {diverged} diverged" if diverged else "")


def columns(ablation: Ablation, runs: list["Run"]) -> list[str]:
    """Returns the head of the table."""
    head = ["variant", *ablation.equal, "seeds finished", "steps", "hours of audio"]
    if ablation.threshold is not None:
        head.append(_threshold_column(ablation))
    if ablation.measure == "mean":
        head.append("mean dev loss")
    head += ["final dev loss", "best"]
    if any(run.gradient_ratios for run in runs):
        head.append(GRADIENT)
    return [*head, "failed", "time"]


def _threshold_column(ablation: Ablation) -> str:
    return f"dev loss below {ablation.threshold:g} at step"


def variant_row(name: str, runs: list["Run"], ablation: Ablation) -> dict[str, str]:
    """Returns a row of the table, by column: the runs of a variant."""
    ended = [run for run in runs if run.outcome]
    finished = [run for run in ended if run.outcome == "finished"]
    row = {"variant": f"`{name}`", "seeds finished": f"{len(finished)} of {len(runs)}"}
    if ablation.equal:
        parameters, latency = ablation.size(name)
        row["parameters"] = f"{parameters / 1e6:.2f} M"
        row["latency"] = f"{latency:g} ms"
    if not ended:
        return row
    row["steps"] = f"{statistics.fmean(run.steps for run in ended):.0f}"
    row["hours of audio"] = f"{statistics.fmean(run.hours for run in ended):.2f}"
    if ablation.threshold is not None:
        row[_threshold_column(ablation)] = _steps_to_threshold(ablation.threshold, ended)
    best = min((loss for run in ended for _, loss in run.dev if math.isfinite(loss)), default=math.nan)
    row["final dev loss"] = estimate([run.final for run in ended if run.final is not None])
    row["mean dev loss"] = estimate([run.mean for run in ended if run.mean is not None])
    row["best"] = f"{best:.4g}".replace("nan", "-")
    ratios = [run.gradient_ratios for run in ended if run.gradient_ratios]
    if ratios:
        first = statistics.median(ratio[0] for ratio in ratios)
        last = statistics.median(ratio[-1] for ratio in ratios)
        row[GRADIENT] = f"{first:.2g}, then {last:.2g}"
    row["failed"] = str(len(ended) - len(finished))
    row["time"] = f"{statistics.fmean(run.seconds for run in ended) / 60:.1f} min"
    return row


def _steps_to_threshold(threshold: float, runs: list["Run"]) -> str:
    """Returns the median of the first steps with a lower dev loss; a run that never has one counts as the last."""
    below = [next((step for step, loss in run.dev if loss < threshold), math.inf) for run in runs]
    median = f"{statistics.median(below):g}".replace("inf", "never")
    return f"{median} ({sum(map(math.isfinite, below))} of {len(below)})"


def difference_row(pair: tuple[str, str], runs: list["Run"]) -> dict[str, str]:
    """Returns a row of the table, by column: the difference of two variants over the seeds where both have a loss."""
    row = {"variant": f"`{pair[0]}` - `{pair[1]}`"}
    for column, attribute in (("final dev loss", "final"), ("mean dev loss", "mean")):
        first, second = ({run.seed: getattr(run, attribute) for run in runs if run.name == name} for name in pair)
        differences = [first[seed] - second[seed] for seed in first if None not in (first[seed], second[seed])]
        row["seeds finished"] = f"{len(differences)} of {len(first)}"
        row[column] = estimate(differences)
    return row


def result_sentence(ablation: Ablation, runs: list["Run"]) -> str:
    """Returns the result of the ablation and of each expectation, by the rules of `Expectation.result`."""
    results, parts = [], []
    for expectation in ablation.expectations:
        involved = [run for run in runs if run.name in expectation.variants]
        left = sum(not run.outcome for run in involved)
        losses: dict[str, dict[int, float]] = {name: {} for name in expectation.variants}
        for run in involved:
            losses[run.name][run.seed] = run.loss(ablation.measure)
        if left:
            result, figures = PENDING, f"{left} of {len(involved)} runs to go"
        else:
            result, figures = expectation.result(losses)
        results.append(result)
        parts.append(f"`{expectation.text}` {result}, {figures}")
    if not results:
        return ""
    overall = overall_result(results)
    return f"**Result: {overall}** ({'; '.join(parts)}). {ablation.explanation.get(overall, '')}".strip()


def section(ablation: Ablation, runs: list["Run"], threads: int, command: str, picture: str | None = None) -> str:
    """Returns the section about an ablation in Markdown; `picture` is the path of its picture."""
    import torch

    from asrtool.device import describe_device, pick_device

    torch.set_num_threads(threads)  # `describe_device` names the number of threads
    head = columns(ablation, runs)
    rows = [variant_row(name, [run for run in runs if run.name == name], ablation) for name in ablation.variants]
    rows += [difference_row(pair, runs) for pair in ablation.pairs]
    failed = [run for run in runs if run.outcome in FAILED]
    parts = [
        f"## {ablation.name}",
        f"Hypothesis: {ablation.hypothesis}",
        result_sentence(ablation, runs),
        picture and f"![dev losses of {ablation.name}]({picture})",
        markdown_table(head, [[row.get(column, "-") for column in head] for row in rows]),
        "\n".join(f"- `{run.name}`, seed {run.seed} {run.outcome}: {run.last_line()}" for run in failed),
        "\n".join(notes(ablation, head)),
        f"On {describe_device(pick_device())}:\n\n```\n{command}\n```",
    ]
    return "\n\n".join(filter(None, parts))


def notes(ablation: Ablation, head: list[str]) -> Iterator[str]:
    """Yields the lines that explain the columns of the table."""
    yield "Final dev loss: mean over seeds and its 95 % interval (Student's t); differences are paired by seed. Steps,"
    yield "hours and time: means over runs that ended. First step below a loss: median. Best: the lowest of all seeds."
    if ablation.measure == "mean":
        yield "Mean dev loss: mean over all validations of a run, lower for faster learning; the result is based on it."
    if GRADIENT in head:
        yield "Gradient: its norm in the lowest block over that in the highest block, first and last logged; median."


def listing(ablations: dict[str, Ablation], runs: dict[str, list["Run"]], left: list["Run"], jobs: int) -> str:
    """Returns a table of the runs to do and their time; a run that several ablations share counts once in the sum."""
    rows = []
    for stem, ablation in ablations.items():
        for name, variant in ablation.variants.items():
            own = [run for run in runs[stem] if run.name == name]
            to_do = sum(run in left for run in own)
            steps = "-" if variant.options else f"{own[0].config.training.max_steps}"
            parameters = f"{ablation.size(name)[0] / 1e6:.2f} M"
            minutes = f"{variant.minutes:g}" if variant.minutes else "?"
            rows.append([stem, name, parameters, steps, str(own[0].processes), str(len(own)), str(to_do), minutes])
    head = ["ablation", "variant", "parameters", "steps", "processes", "seeds", "to do", "minutes per run"]
    minutes = sum((run.variant.minutes or math.nan) * min(run.processes, jobs) for run in left) / jobs
    time = "the time is unknown" if math.isnan(minutes) else f"about {minutes:.0f} minutes"
    return f"{markdown_table(head, rows)}\n\n{len(left)} runs to do, {jobs} processes at a time: {time}"


def draw(ablation: Ablation, runs: list["Run"], path: Path) -> None:
    """Draws the dev losses over hours of audio as PNG.

    Each variant has a colour: a thin line for each seed, a thick line for their mean, a cross where a run failed.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for number, name in enumerate(ablation.variants):
        colour = f"C{number % 10}"
        own = [run for run in runs if run.name == name and _curve(run)]
        for run in own:
            axis.plot(*zip(*_curve(run), strict=True), color=colour, linewidth=0.7, alpha=0.5)
            if run.outcome in FAILED:
                axis.plot(*_curve(run)[-1], "x", color=colour)
        axis.plot(*_mean_curve([_curve(run) for run in own]), color=colour, linewidth=2, marker=".", label=name)
    levels = {expectation.level for expectation in ablation.expectations if expectation.level is not None}
    for level in sorted(levels):
        axis.axhline(level, color="grey", linestyle=":", label=f"{level:g}")
    axis.set(xlabel="hours of audio", ylabel="dev loss, nats per unit", title=ablation.name)
    losses = [loss for run in runs for _, loss in _curve(run)]
    if max(losses) > PICTURE_HEIGHT * statistics.median(losses):
        axis.set_ylim(0, PICTURE_HEIGHT * statistics.median(losses))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    pyplot.close(figure)


def _curve(run: "Run") -> list[tuple[float, float]]:
    """Returns pairs of hours of audio and dev loss, without losses that are not finite."""
    return [(step * run.hours / run.steps, loss) for step, loss in run.dev if math.isfinite(loss)]


def _mean_curve(curves: list[list[tuple[float, float]]]) -> tuple[list[float], list[float]]:
    """Returns the means of hours and of losses at each validation, for as long as the shortest curve goes.

    The hours have means too, because batches of other seeds have other lengths.
    """
    points = list(zip(*curves, strict=False))
    return tuple([statistics.fmean(point[axis] for point in at) for at in points] for axis in (0, 1))


def overview(text: str) -> str:
    """Returns a table of the ablations that have a section in `text`, by number: hypothesis and result."""
    rows = re.findall(r"^## (.+)\n\nHypothesis: (.+)\n\n\*\*Result: (.+?)\*\*", text, re.MULTILINE)
    rows.sort(key=lambda row: natural_sort_key(row[0]))
    links = (re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title, *_ in rows)
    cells = [(f"[{title}](#{link})", *rest) for link, (title, *rest) in zip(links, rows, strict=True)]
    return markdown_table(["ablation", "hypothesis", "result"], cells)
