"""Draws the pictures of streaming.md: `python docs/pictures/draw.py` writes the *.svg of this folder.

The matrices come from the code that the models use (asrtool/models/masks.py), so the pictures show what is computed.
"""

from pathlib import Path

import torch

from asrtool.models.masks import sliding_mask, windows

HERE = Path(__file__).parent
CELL = 22  # pixels
SEEN, UNSEEN, EDGE, TEXT, OWN = "#5b9bd5", "#e9edf2", "#8a94a0", "#7d8793", "#e0903a"
FONT = 'font-family="Helvetica, Arial, DejaVu Sans, sans-serif"'


def chunk_mask(frames: int, chunk: int, memory: int) -> torch.Tensor:
    """(frames, frames) bool: which frames each frame sees, by the windows of the chunked models."""
    places = torch.arange(-memory, frames)[None, :, None]
    seen = windows(places, chunk, memory)[0, :, :, 0]  # (chunks, memory + chunk)
    mask = torch.zeros(frames, frames, dtype=torch.bool)
    for query in range(frames):
        for key in seen[query // chunk].tolist():
            if key >= 0:
                mask[query, key] = True
    return mask


def svg(width: int, height: int, title: str, body: list[str]) -> str:
    """A whole SVG file; texts outside of boxes are mid-grey, which is readable on light and on dark pages."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" {FONT}>'
    return "\n".join([head, f"  <title>{title}</title>", *body, "</svg>\n"])


def cell(x: float, y: float, fill: str) -> str:
    """One square of a matrix."""
    return f'  <rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="{fill}" stroke="{EDGE}" stroke-width="0.7"/>'


def label(x: float, y: float, text: str, size: int = 13, anchor: str = "middle") -> str:
    """A line of text."""
    return f'  <text x="{x}" y="{y}" font-size="{size}" fill="{TEXT}" text-anchor="{anchor}">{text}</text>'


def matrix(x: int, y: int, mask: torch.Tensor, title: str) -> list[str]:
    """A mask with the numbers of its queries (rows) and keys (columns); the frame itself is orange."""
    queries, keys = mask.shape
    body = [label(x + keys * CELL / 2, y - 28, title, 14)]
    for key in range(keys):
        body.append(label(x + (key + 0.5) * CELL, y - 7, str(key), 11))
    for query in range(queries):
        body.append(label(x - 10, y + (query + 0.7) * CELL, str(query), 11))
        for key in range(keys):
            fill = OWN if query == key else SEEN if mask[query, key] else UNSEEN
            body.append(cell(x + key * CELL, y + query * CELL, fill))
    return body


def draw_masks() -> str:
    """The three masks of a Transformer over 8 frames."""
    frames, step = 8, 8 * CELL + 52
    masks = {
        "full": torch.ones(frames, frames, dtype=torch.bool),
        "sliding: left_context 2, right_context 1": sliding_mask(frames, frames, 0, 2, 1),
        "chunk: chunk_size 2, memory 3": chunk_mask(frames, 2, 3),
    }
    body = []
    for column, (title, mask) in enumerate(masks.items()):
        body += matrix(60 + column * (step + 34), 58, mask, title)
    body.append(
        label(60, 58 + frames * CELL + 24, "rows: the frame that is computed; columns: the frames it sees", 12, "start")
    )
    return svg(60 + 3 * (step + 34), 58 + frames * CELL + 36, "Attention masks over 8 frames", body)


def reach(mask: torch.Tensor, layers: int, frame: int) -> list[torch.Tensor]:
    """From the top layer down to the input: the frames that `frame` of the top layer depends on."""
    seen = torch.zeros(mask.shape[0], dtype=torch.bool)
    seen[frame] = True
    levels = [seen]
    for _ in range(layers):
        seen = mask[seen].any(0)
        levels.append(seen)
    return levels


def draw_depth() -> str:
    """How far one output frame depends on its input through 4 layers, by a sliding and by a chunk mask."""
    frames, layers, frame = 16, 4, 8
    masks = {
        "sliding, right_context 1: the look-ahead grows by 1 frame a layer": sliding_mask(frames, frames, 0, 1, 1),
        "chunk, chunk_size 4, memory 2: the look-ahead ends with the chunk": chunk_mask(frames, 4, 2),
    }
    body, top = [], 40
    for title, mask in masks.items():
        body.append(label(110, top - 12, title, 14, "start"))
        for level, seen in enumerate(reach(mask, layers, frame)):
            name = "output" if level == 0 else "input" if level == layers else f"layer {layers - level}"
            body.append(label(100, top + (level + 0.7) * CELL, name, 12, "end"))
            for place in range(frames):
                fill = OWN if level == 0 and seen[place] else SEEN if seen[place] else UNSEEN
                body.append(cell(110 + place * CELL, top + level * CELL, fill))
        top += (layers + 1) * CELL + 46
    return svg(110 + frames * CELL + 190, top - 20, "Look-ahead through the layers", body)


def draw_lc_blstm() -> str:
    """Chunks of an LC-BLSTM: chunk_size 4 and look_ahead 2 over 12 frames."""
    frames, chunk, ahead = 12, 4, 2
    body, top = [label(110, 26, "LC-BLSTM: chunk_size 4, look_ahead 2", 14, "start")], 40
    for number in range(frames // chunk):
        y, first = top + number * (CELL + 14), number * chunk
        body.append(label(100, y + 0.7 * CELL, f"chunk {number}", 12, "end"))
        for place in range(frames):
            if first <= place < first + chunk:
                fill = OWN
            else:
                fill = SEEN if first + chunk <= place < first + chunk + ahead else UNSEEN
            body.append(cell(110 + place * CELL, y, fill))
            body.append(
                f'  <text x="{110 + (place + 0.5) * CELL}" y="{y + 0.7 * CELL}" font-size="11" '
                f'fill="#1c2733" text-anchor="middle">{place}</text>'
            )
    y = top + frames // chunk * (CELL + 14) + 8
    body.append(
        label(
            110,
            y,
            "orange: frames that are output; blue: look-ahead frames, whose outputs are thrown away.",
            12,
            "start",
        )
    )
    body.append(
        label(
            110,
            y + 18,
            "The forward state goes from chunk to chunk; the backward state starts at zero "
            "at the right edge of the blue frames.",
            12,
            "start",
        )
    )
    return svg(860, y + 32, "Chunks of an LC-BLSTM", body)


def main() -> None:
    """Write all pictures."""
    for name, drawing in (("masks", draw_masks()), ("depth", draw_depth()), ("lc_blstm", draw_lc_blstm())):
        (HERE / f"{name}.svg").write_text(drawing, encoding="utf-8")


if __name__ == "__main__":
    main()
