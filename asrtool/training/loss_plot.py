"""The picture of a training's losses and learning rate."""

from pathlib import Path
from typing import TypeGuard

from asrtool.files import atomic_path
from asrtool.readers import read_jsonl


def plot_losses(log: Path, picture: Path) -> None:
    """Draws the losses and the learning rate of a `log.jsonl` by step, as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = list(read_jsonl(log))
    figure, axis = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    if points := _points(rows, "train", "loss"):
        axis.plot(*zip(*points, strict=True), label="training loss")
    for name, points in _dev_losses(rows).items():
        axis.plot(*zip(*points, strict=True), label=name, marker=".")
    axis.set(xlabel="step", ylabel="nats per unit", yscale="log", title=log.parent.name)
    axis.grid(alpha=0.3)
    lr_axis = axis.twinx()
    if points := _points(rows, "train", "lr"):
        lr_axis.plot(*zip(*points, strict=True), color="grey", linestyle=":", label="learning rate")
    lr_axis.set_ylabel("learning rate")
    figure.legend(loc="outside upper right", ncols=3)
    with atomic_path(picture) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    pyplot.close(figure)


def _dev_losses(rows: list) -> dict[str, list[tuple[float, float]]]:
    """Step and loss of the dev set, or of each of several dev sets."""
    losses = [row["losses"] | {"step": row.get("step")} for row in rows if _has_losses(row)]
    names = dict.fromkeys(name for row in losses for name in row if name != "step")
    curves = {f"dev loss, {name}": _points([{**row, "event": "dev"} for row in losses], "dev", name) for name in names}
    curves = curves or {"dev loss": _points(rows, "dev", "loss")}
    return {name: points for name, points in curves.items() if points}


def _has_losses(row: object) -> bool:
    return isinstance(row, dict) and row.get("event") == "dev" and isinstance(row.get("losses"), dict)


def _points(rows: list, event: str, name: str) -> list[tuple[float, float]]:
    """Step and value of `name` in the rows of an event. Rows of a resumed log may hold anything."""
    points = []
    for row in rows:
        if isinstance(row, dict) and row.get("event") == event:
            step = row.get("step")
            value = row.get(name)
            if _is_number(step) and _is_number(value):
                points.append((float(step), float(value)))
    return points


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
