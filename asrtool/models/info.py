"""What a configuration amounts to, without training anything."""

import math

from asrtool.config import Config
from asrtool.models.acoustic import AcousticModel

FRAME_MS = 10  # of a feature frame


def model_info(config: Config, units: int) -> dict[str, str]:
    """Parameters, frame rate and latency of the model of `config` with `units` outputs, as readable values."""
    model = AcousticModel(config, units)
    parts = {"front end": model.subsampling, "encoder": model.encoder, "output": model.output}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    latency = model.latency()
    whole = math.isinf(latency.right)
    return {
        "architecture": config.model.architecture,
        "parameters": f"{sum(counts.values()):,} ({', '.join(f'{n} {c:,}' for n, c in counts.items())})",
        "units": f"{units:,}",
        "output frame": f"{model.subsampling.factor * FRAME_MS} ms ({model.subsampling.factor}x subsampling)",
        "right context": "the whole utterance" if whole else f"{latency.right * FRAME_MS:.0f} ms",
        "latency": "the whole utterance" if whole else f"{(latency.right + latency.chunk) * FRAME_MS:.0f} ms at most",
    }
