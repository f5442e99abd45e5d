"""The sections and keys of a configuration, with their defaults and limits.

This file and config_data.py, which has the sections about data, are the reference of every key: the comment directly
above a key says what it is, its unit and what it does. config_types.py has the types of the values.
asrtool/config_file.py reads configurations from YAML files and writes them.
"""

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from asrtool.config_data import DataConfig, FeaturesConfig
from asrtool.config_types import (
    Chunk,
    ContextPerLayer,
    Dropout,
    Duration,
    Flag,
    FractionBelowOne,
    Integer,
    NonNegativeInteger,
    NonNegativeReal,
    PositiveInteger,
    PositiveReal,
    Real,
    Section,
    Seed,
)


class SubsamplingConfig(Section):
    """The front end, which reduces the frame rate: `factor` feature frames of 10 ms become one frame."""

    # Type: 2-D convolutions with strides, VGG blocks, or stacked frames with a linear projection
    kind: Literal["conv", "vgg", "stack"] = "conv"
    # Subsampling factor: usually 3 or 4; for "conv" a product of twos and threes, for "vgg" a power of two
    factor: Annotated[Integer, Field(gt=0, le=64)] = 4
    # Number of channels of the first convolution; "vgg" doubles it with each halving of the frame rate
    channels: Annotated[Integer, Field(gt=0, le=4096)] = 64
    # vgg: whether its convolutions see no later frames; the other types never look ahead
    causal: Flag = False

    @property
    def strides(self) -> list[int]:
        """The strides over time of the convolutions, or the sizes of the pools of VGG: the prime factors, 2 and 3."""
        strides = []
        rest = self.factor
        for prime in (2, 3):
            while rest % prime == 0:
                strides.append(prime)
                rest //= prime
        return strides

    @model_validator(mode="after")
    def _check_factor(self) -> "SubsamplingConfig":
        is_divided = self.factor > 1 and math.prod(self.strides) == self.factor
        if self.kind != "stack" and not (is_divided and (self.kind == "conv" or 3 not in self.strides)):
            allowed = "a power of two" if self.kind == "vgg" else "a product of twos and threes"
            raise ValueError(
                f"factor {self.factor} of {self.kind} must be {allowed}, 2 or more; other factors need kind stack"
            )
        return self


class ConvolutionConfig(Section):
    """The 1-D convolution over time after each block of a Transformer (asrtool/models/convolution.py)."""

    # Type: none, a plain interleaved convolution, one with a residual connection, or the Conformer's convolution module
    kind: Literal["none", "interleaved", "residual", "conformer"] = "none"
    # Kernel size in frames; odd unless the convolution is causal
    kernel: Annotated[Integer, Field(gt=1, le=1001)] = 3
    # Whether it sees no later frames; otherwise it looks ahead half a kernel, which adds up over the layers
    causal: Flag = False

    @model_validator(mode="after")
    def _check_kernel(self) -> "ConvolutionConfig":
        if not self.causal and self.kernel % 2 == 0:
            raise ValueError(f"a symmetric convolution needs an odd kernel, not {self.kernel}; or causal: true")
        return self


class InitConfig(Section):
    """Initialisation of the weight matrices of the Transformer blocks (asrtool/models/initialise.py)."""

    # Scheme: torch's defaults, or bounds that shrink with depth: alpha / layer ** exponent (arXiv 1908.11365)
    scheme: Literal["default", "depth_scaled"] = "default"
    # depth_scaled: factor of all bounds
    alpha: Annotated[Real, Field(gt=0, le=1)] = 1.0
    # depth_scaled: exponent of the layer's number, counted from 1
    exponent: Annotated[Real, Field(ge=0, le=100)] = 0.5
    # depth_scaled: the matrices that it draws: all of a block, or those of queries, keys and values alone
    scope: Literal["all", "qkv"] = "all"


# Keys that only some models have: key -> the models that need a number there. All other models need null.
MODELS_WITH_KEY = {
    "chunk_size": "lc_blstm, transformer_xl and transformer with mask chunk",
    "memory": "transformer_xl and transformer with mask chunk",
    "look_ahead": "lc_blstm",
}


class ModelConfig(Section):
    """The acoustic model (asrtool/models). Frames are those after subsampling."""

    # Architecture of the encoder
    architecture: Literal["blstm", "lc_blstm", "transformer", "transformer_xl"] = "transformer"
    # Mean and variance normalisation of the features per mel bin, inside the model: with the statistics of the training
    # set, with those of each utterance, or none
    normalise: Literal["global", "utterance", "none"] = "global"
    # Section of the front end
    subsampling: SubsamplingConfig = SubsamplingConfig()
    # Model dimension; an LSTM has half of it in each direction
    dim: Annotated[Integer, Field(gt=0, le=16_384)] = 256
    # Number of layers
    layers: Annotated[Integer, Field(gt=0, le=1000)] = 12
    # Dropout of the encoder's input and of the output of each sublayer
    dropout: Dropout = 0.1
    # Transformer: number of attention heads
    heads: Annotated[Integer, Field(gt=0, le=1024)] = 4
    # Transformer: dimension inside the feed-forward layers
    ff_dim: Annotated[Integer, Field(gt=0, le=131_072)] = 1024
    # Transformer: activation function of the feed-forward layers
    activation: Literal["relu", "silu", "gelu"] = "silu"
    # Transformer: layer normalisation before each sublayer (Pre-Norm) or after its residual connection (Post-Norm)
    norm: Literal["pre", "post"] = "pre"
    # Transformer: positional encoding: sinusoids added to the input, relative encodings in attention, or none
    positional_encoding: Literal["sinusoidal", "relative", "none"] = "sinusoidal"
    # Transformer: section of the convolution after each block
    convolution: ConvolutionConfig = ConvolutionConfig()
    # Transformer: section of the initialisation
    init: InitConfig = InitConfig()
    # Transformer: dropout of the attention weights; slow on CPU in fp32
    attention_dropout: Dropout = 0.0
    # Transformer: dropout inside the feed-forward layers
    ff_dropout: Dropout = 0.0
    # Transformer: probability that a training step skips a block (LayerDrop); not with parallel.strategy fsdp
    layer_drop: FractionBelowOne = 0.0
    # Transformer: whether the backward pass computes the activations inside blocks again instead of storing them
    activation_checkpointing: Flag = False
    # Attention mask of architecture transformer: the whole utterance, a sliding window, or chunks
    mask: Literal["full", "sliding", "chunk"] = "full"
    # sliding: left context in frames, one number for all layers or a list with one per layer; null is unlimited
    left_context: ContextPerLayer = None
    # sliding: right context (look-ahead) in frames, like left_context; it adds up over the layers
    right_context: ContextPerLayer = None
    # lc_blstm, transformer_xl, mask chunk: number of frames of a chunk, which are computed together and see each other
    chunk_size: Annotated[Chunk, Field(gt=0)] | None = None
    # transformer_xl, mask chunk: number of frames before a chunk that its frames attend to; transformer_xl sends no
    # gradient through them
    memory: Annotated[Integer, Field(ge=0, le=5000)] | None = None
    # lc_blstm: number of frames after a chunk that are read for its backward LSTM
    look_ahead: Chunk | None = None

    @model_validator(mode="after")
    def _check_model(self) -> "ModelConfig":
        if self.architecture in ("blstm", "lc_blstm"):
            self._check_blstm()
        elif self.dim % self.heads or self.positional_encoding == "sinusoidal" and self.dim % 2:
            raise ValueError(f"dim {self.dim} must be even and a multiple of heads {self.heads}")
        if self.mask != "full" and self.architecture != "transformer":
            raise ValueError(f"mask {self.mask} is for architecture transformer, not {self.architecture}")
        self._check_chunks()
        if self.mask != "sliding" and (self.left_context, self.right_context) != (None, None):
            raise ValueError("left_context and right_context are for mask sliding")
        for context in (self.left_context, self.right_context):
            if isinstance(context, tuple) and len(context) != self.layers:
                raise ValueError(f"{len(context)} numbers of frames for {self.layers} layers")
        return self

    def _check_blstm(self) -> None:
        if self.dim % 2:
            raise ValueError(f"dim {self.dim} must be even: half of it for each direction")
        if self.convolution.kind != "none" or self.init.scheme != "default":
            raise ValueError(f"convolution and init are for Transformers, not for {self.architecture}")

    def _check_chunks(self) -> None:
        is_chunked = self.mask == "chunk" or self.architecture == "transformer_xl"
        is_lc_blstm = self.architecture == "lc_blstm"
        is_needed = {"chunk_size": is_chunked or is_lc_blstm, "memory": is_chunked, "look_ahead": is_lc_blstm}
        for name, needed in is_needed.items():
            if (getattr(self, name) is not None) != needed:
                verb = "needs" if needed else "has no"
                model = f"{self.architecture} with mask {self.mask}"
                raise ValueError(f"{model} {verb} {name}: it is for {MODELS_WITH_KEY[name]}")

    def per_layer(self, context: int | tuple[int, ...] | None) -> list[int | None]:
        """`left_context` or `right_context` of each layer, the lowest layer first."""
        return list(context) if isinstance(context, tuple) else [context] * self.layers


DEFAULT_SILENCE_PROBABILITY = 0.5  # as in Kaldi's lexica


class ObjectiveConfig(Section):
    """The training objective (asrtool/objectives), which asrtool/training/objective.py creates."""

    # Objective: CTC, lattice-free MMI, or frame-wise cross entropy on alignments: those named "unit" in the manifests,
    # which `asrtool align` writes
    kind: Literal["ctc", "mmi", "ce"] = "ctc"
    # Share of the loss that is CTC on the output of the middle block of a Transformer (intermediate CTC)
    intermediate_ctc: FractionBelowOne = 0.0
    # HMM topology of the units: CTC; mmi: CTC without the rule of a blank between equal units ("modified"); or two
    # states for each unit and no blank, as in Kaldi's chain models ("hmm"): one for its first frame, one for the others
    topology: Literal["ctc", "modified", "hmm"] = "ctc"
    # Probability of silence before each word and at the end in training graphs, of units that have a silence; 0: it is
    # never there; null: 0.5 with topology hmm, which has no blank for pauses, and 0 with the others
    silence_probability: FractionBelowOne | None = None
    # mmi: order of the unit n-gram model of the denominator graph
    ngram_order: Annotated[Integer, Field(gt=0, le=20)] = 4
    # mmi: smallest count of an n-gram history of two units or more in the denominator's model; for a history with a
    # smaller count, the longest shorter one is used
    min_count: PositiveInteger = 3
    # mmi: leaky-HMM coefficient: weight of a jump to any state of the denominator between frames; 0 turns it off
    leaky_hmm: FractionBelowOne = 1e-5
    # mmi: weight of the CTC loss that is added
    ctc_weight: NonNegativeReal = 0.1
    # mmi: weight of the frame-wise cross entropy that is added; it needs alignments
    ce_weight: NonNegativeReal = 0.0
    # Frame-wise cross entropy: share of each frame's target that is spread evenly over all units
    label_smoothing: FractionBelowOne = 0.0

    @property
    def optional_silence(self) -> float:
        """`silence_probability`, or its default by the topology."""
        if self.silence_probability is None:
            return DEFAULT_SILENCE_PROBABILITY if self.topology == "hmm" else 0.0
        return self.silence_probability

    @property
    def needs_alignments(self) -> bool:
        """Returns True if training reads alignments from the manifests."""
        return self.kind == "ce" or self.kind == "mmi" and self.ce_weight > 0


class TrainingConfig(Section):
    """The optimiser, the schedule, and checkpoints. A step is one update of the weights."""

    # Optimiser: AdamW for all weights, or Muon for the matrices of the layers and AdamW for all other weights
    optimizer: Literal["adamw", "muon"] = "adamw"
    # Factor of the learning rate for the matrices that Muon updates
    muon_lr_factor: PositiveReal = 4.0
    # Peak learning rate; the factor of schedule "noam"
    lr: PositiveReal = 1e-3
    # Audio per step in seconds for which lr is meant: lr is scaled with the audio in a step; null turns scaling off
    lr_reference_seconds: Duration | None = None
    # Number of steps of the learning rate's warmup
    warmup_steps: NonNegativeInteger = 500
    # Schedule of the learning rate after the warmup (asrtool/training/schedule.py)
    schedule: Literal["linear", "cosine", "inverse_sqrt", "noam", "one_cycle", "none"] = "cosine"
    # Number of steps of the training
    max_steps: PositiveInteger = 10000
    # Number of batches per step on each rank, whose gradients are accumulated
    accumulate_grad_batches: PositiveInteger = 1
    # Weight decay, which is multiplied by the learning rate
    weight_decay: NonNegativeReal = 0.01
    # Coefficients of the running means of AdamW: of the gradient and of its square
    betas: tuple[FractionBelowOne, FractionBelowOne] = (0.9, 0.98)
    # Largest gradient norm; larger gradients are scaled down to it
    max_grad_norm: PositiveReal = 5.0
    # Precision of the computation: weights and optimiser stay in fp32. auto is bf16 where the processor supports it
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    # Whether torch.compile fuses the operations of a Transformer's blocks; the first steps take minutes then
    compile: Flag = False
    # Number of steps between validations; each writes a checkpoint
    validate_every: PositiveInteger = 500
    # Number of steps between further checkpoints; null writes none by steps
    save_every: PositiveInteger | None = None
    # Minutes between further checkpoints; null writes none by time
    save_minutes: Duration | None = 10.0
    # Number of validations without a lower dev loss after which training stops; null never stops early
    patience: PositiveInteger | None = None
    # Number of checkpoints that are kept by dev loss
    keep_best: PositiveInteger = 5
    # Number of checkpoints of validations that are kept by step
    keep_last: PositiveInteger = 1
    # Weights of `averaged.pt`: the mean of the best or of the last checkpoints, or the running mean over all steps
    average: Literal["best", "last", "ema"] = "best"
    # Decay of the running mean of the weights (EMA) over all steps; 1 is the plain mean, null keeps none
    ema_decay: Annotated[Real, Field(gt=0, le=1)] | None = None
    # Number of steps between rows of the log
    log_every: PositiveInteger = 50
    # Whether the log has the gradient norm of every block
    log_layers: Flag = False
    # Experiment trackers: any of tensorboard, wandb (Weights & Biases) and mlflow. The latter two need the extra of
    # their name, and take addresses and keys from their own environment variables (docs/trackers.md)
    trackers: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], Field(max_length=3)] = ("tensorboard",)

    @model_validator(mode="after")
    def _check_schedule_and_average(self) -> "TrainingConfig":
        if self.schedule not in ("none", "inverse_sqrt", "noam") and self.warmup_steps >= self.max_steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} must be below max_steps {self.max_steps}: "
                f"give --set training.warmup_steps={self.max_steps // 10}, or more steps"
            )
        if self.schedule == "noam" and not self.warmup_steps:
            raise ValueError("schedule noam needs warmup_steps")
        if self.average == "ema" and self.ema_decay is None:
            raise ValueError("average ema needs ema_decay, e.g. 0.999")
        return self


class ParallelConfig(Section):
    """Training with several processes, started by torchrun (asrtool/training/parallel.py, bmuf.py)."""

    # Strategy: DistributedDataParallel, blockwise model-update filtering (BMUF), sharded weights (FSDP2), or none,
    # which refuses more than one process
    strategy: Literal["none", "ddp", "bmuf", "fsdp"] = "ddp"
    # ddp: number format in which gradients are sent; none is fp32, bf16 needs GPUs
    gradient_compression: Literal["none", "fp16", "bf16"] = "none"
    # Time in seconds to wait for another process before training stops with an error
    timeout: Duration = 600.0
    # bmuf: number of steps in a block, after which the workers synchronise
    block_steps: PositiveInteger = 16
    # bmuf: block momentum; null is 1 - 1 / number of workers
    block_momentum: FractionBelowOne | None = None
    # bmuf: block learning rate
    block_lr: PositiveReal = 1.0
    # bmuf: whether block momentum is Nesterov's instead of classical
    nesterov: Flag = False
    # bmuf: the optimiser's moments when workers synchronise: averaged as in BMUF-Adam, or reset to zero
    block_moments: Literal["average", "reset"] = "average"
    # bmuf: number of ranks that form one worker, with ddp inside; null is all ranks of a machine
    ranks_per_worker: PositiveInteger | None = None


class GuardsConfig(Section):
    """Guards against bad steps, which are skipped, and rollbacks to a checkpoint (asrtool/training/guards.py)."""

    # Number of standard deviations above the loss's running mean from which on a step's loss is a spike
    loss_spike_std: Annotated[Real, Field(gt=1)] = 10.0
    # Number of bad steps in a row after which training goes back to its last checkpoint
    max_bad_steps: PositiveInteger = 10
    # Factor of the learning rate, applied at each rollback
    lr_factor: Annotated[Real, Field(gt=0, le=1)] = 0.5
    # Number of rollbacks after which the next one stops the training
    max_rollbacks: NonNegativeInteger = 3


class Config(Section):
    """The configuration of one experiment."""

    # Seed of the initial weights, the order of the data, augmentation and dropout
    seed: Seed = 1
    # Section of the features
    features: FeaturesConfig = FeaturesConfig()
    # Section of the data
    data: DataConfig = DataConfig()
    # Section of the acoustic model
    model: ModelConfig = ModelConfig()
    # Section of the training objective
    objective: ObjectiveConfig = ObjectiveConfig()
    # Section of the optimiser, the schedule and the checkpoints
    training: TrainingConfig = TrainingConfig()
    # Section of training with several processes
    parallel: ParallelConfig = ParallelConfig()
    # Section of the guards against bad steps
    guards: GuardsConfig = GuardsConfig()

    @model_validator(mode="after")
    def _check_sections(self) -> "Config":
        changes = self.data.augment.sample_changes
        if self.features.source == "stored" and changes:
            verb = "change" if len(changes) > 1 or changes == ("speeds",) else "changes"
            raise ValueError(
                f"data.augment.{', '.join(changes)} {verb} the audio, but features.source is 'stored': "
                "use on_the_fly, or `asrtool features --speeds` for other speeds"
            )
        if self.objective.intermediate_ctc and not self.model.architecture.startswith("transformer"):
            raise ValueError(f"objective.intermediate_ctc is for Transformers, not for {self.model.architecture}")
        if self.training.compile and not self.model.architecture.startswith("transformer"):
            raise ValueError(f"training.compile is for Transformers, not for {self.model.architecture}")
        if self.data.min_seconds >= self.data.max_seconds:
            raise ValueError("data.min_seconds must be below data.max_seconds")
        return self
