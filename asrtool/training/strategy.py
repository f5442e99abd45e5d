"""The choice of the parallel strategy that a configuration names."""

from asrtool.config import ParallelConfig
from asrtool.distributed import Ranks
from asrtool.errors import UserError
from asrtool.training.bmuf import Bmuf
from asrtool.training.parallel import Ddp, Fsdp, Strategy


def create_strategy(parallel: ParallelConfig, ranks: Ranks, skips_layers: bool) -> Strategy:
    """Returns the configured strategy, or the one of a single process if there is only one.

    `skips_layers`: training leaves out layers at random (model.layer_drop). Raises UserError.
    """
    if ranks.world_size == 1:
        return Strategy(ranks)
    if parallel.strategy == "ddp":
        return Ddp(ranks, parallel.gradient_compression, skips_layers)
    if parallel.strategy == "fsdp" and skips_layers:
        raise UserError(
            "parallel.strategy fsdp and model.layer_drop: each rank skips other blocks, for whose weights the others "
            "would wait; use ddp or bmuf, or set model.layer_drop=0"
        )
    if parallel.strategy == "fsdp":
        return Fsdp(ranks)
    if parallel.strategy == "bmuf":
        return Bmuf(parallel, ranks, skips_layers)
    raise UserError(f"parallel.strategy is none, but there are {ranks.world_size} processes; use ddp, bmuf or fsdp")
