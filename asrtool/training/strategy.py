"""The parallel strategy that a configuration names."""

from asrtool.config import Config
from asrtool.distributed import Ranks
from asrtool.errors import UserError
from asrtool.training.bmuf import Bmuf
from asrtool.training.parallel import Alone, Ddp, Fsdp


def make_strategy(config: Config, ranks: Ranks) -> Alone:
    """The configured strategy; with one process all are plain training. Raises UserError."""

    name = config.parallel.strategy
    if ranks.world_size > 1 and name == "none":
        raise UserError(f"parallel.strategy is none, but there are {ranks.world_size} processes; use ddp, bmuf or fsdp")
    kinds = {"none": Alone, "ddp": Ddp, "fsdp": Fsdp, "bmuf": Bmuf}
    return (kinds[name] if ranks.world_size > 1 else Alone)(config, ranks)
