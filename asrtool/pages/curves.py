"""The curves of a training from its log.jsonl: losses, learning rate, gradient norms, speed."""

from collections.abc import Iterator
from pathlib import Path

from asrtool.errors import AsrtoolError
from asrtool.pages.elements import Element, column, lines, series, table, text
from asrtool.readers import read_training_log

MAX_POINTS = 4000  # of a curve; of a longer log each n-th point
MAX_LAYERS = 6  # lines that can be told apart: the first and last layers, and some between
EVENTS = ("start", "rollback", "stopped", "finished")  # events that are listed


def curve_elements(log: Path) -> list[Element]:
    """Returns the curves of a log, or a note why there are none."""
    if not log.is_file():
        return [text("The experiment has no log.jsonl, which curves are drawn from.", "note")]
    try:
        rows = [row for row in read_training_log(log) if isinstance(row, dict) and _is_number(row.get("step"))]
    except (AsrtoolError, OSError) as error:
        return [text(f"The curves cannot be drawn: {error}", "note")]
    losses = [series("training", points(rows, "train", "loss")), *_dev_losses(rows)]
    charts = [
        ("Loss", "nats per unit", losses, True),
        ("Learning rate", "learning rate", [series("learning rate", points(rows, "train", "lr"))], False),
        ("Gradient norm", "norm", [series("gradient norm", points(rows, "train", "gradient_norm"))], True),
        ("Gradient norm of layers", "norm", _layers(rows), True),
        ("Loss of each corpus", "nats per unit", list(_named(rows, "corpora", "loss")), True),
        ("Speed", "hours of audio per hour", [series("speed", points(rows, "train", "times_real_time"))], False),
    ]
    elements: list[Element] = []
    for caption, y_name, all_series, log_scale in charts:
        drawn = [one for one in all_series if one["points"]]
        if drawn:
            elements.append(lines(caption, "step", y_name, drawn, log_scale and _all_positive(drawn)))
    return [*elements, *_event_table(rows)]


def points(rows: list[dict], event: str, name: str) -> list[tuple[float, float]]:
    """Returns (step, value) of `name` in the rows of an event, MAX_POINTS at most."""
    found = [
        (float(row["step"]), float(row[name]))
        for row in rows
        if row.get("event") == event and _is_number(row.get(name))
    ]
    return thinned(found)


def thinned(found: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns MAX_POINTS points at most, the last among them."""
    every = -(-len(found) // MAX_POINTS)
    return found if every <= 1 else [*found[:-1:every], found[-1]]


def _dev_losses(rows: list[dict]) -> list[dict]:
    """Returns the losses of the dev set, or of each of several dev sets."""
    named = list(_named(rows, "dev", "losses"))
    return named or [series("dev", points(rows, "dev", "loss"), marks=True)]


def _named(rows: list[dict], event: str, field: str) -> Iterator[dict]:
    """Yields a line for each name in a field such as {"dev": 0.5, "noisy": 0.9}."""
    values = [
        (row["step"], row[field]) for row in rows if row.get("event") == event and isinstance(row.get(field), dict)
    ]
    names = dict.fromkeys(str(name) for _, entry in values for name in entry)
    for name in names:
        found = [(float(step), float(entry[name])) for step, entry in values if _is_number(entry.get(name))]
        yield series(name, thinned(found), marks=event == "dev")


def _layers(rows: list[dict]) -> list[dict]:
    """Returns the gradient norms of some layers, where the training logged them (training.log_layers)."""
    names = [name for row in rows if row.get("event") == "layers" for name in row if name.startswith("layer_")]
    layers = sorted(set(names))
    every = max(1, -(-(len(layers) - 1) // (MAX_LAYERS - 1)))
    chosen = dict.fromkeys([*layers[:-1:every], *layers[-1:]])
    return [series(name.replace("_", " "), points(rows, "layers", name)) for name in chosen]


def _event_table(rows: list[dict]) -> list[Element]:
    listed = [
        (row["event"], row["step"], str(row.get("time", "")), _event_text(row))
        for row in rows
        if row.get("event") in EVENTS
    ]
    columns = [column("event"), column("step", "number"), column("time"), column("what")]
    return [table("Events", columns, listed)] if listed else []


def _event_text(row: dict) -> str:
    shown = {"start": ("device", "ranks"), "rollback": ("to",), "finished": ("loss", "hours", "device_hours")}
    names = shown.get(row["event"], ("bad_steps", "rollbacks"))
    return ", ".join(f"{name.replace('_', ' ')} {_short(row[name])}" for name in names if row.get(name) is not None)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:200]


def _all_positive(all_series: list[dict]) -> bool:
    return all(y > 0 for one in all_series for _, y in one["points"])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
