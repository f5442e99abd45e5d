"""conf/train.yaml of a generated recipe."""

from asrtool.recipes.choices import AudioChoices, TrainingChoices
from asrtool.recipes.command_lines import comment

SPEC_AUGMENT_WIDTHS = {8000: 10, 16000: 20}  # mel bins of a mask: a quarter of the bins


def config_text(title: str, audio: AudioChoices, training: TrainingChoices, has_dev: bool) -> str:
    """Returns the configuration as YAML, with a comment that gives the reason of each choice."""
    preset = training.preset.value
    folder = "data/fbank" if audio.source.value == "stored" else "data"
    dev = "dev" if has_dev else "train"
    on_the_fly = audio.source.value == "on_the_fly"
    speeds = f"    speeds: {list(audio.speeds.value)} # {audio.speeds.why}\n" if on_the_fly else ""
    vtlp = f"    vtlp: {preset.vtlp} # stands for further speakers\n" if preset.vtlp else ""
    position = "  positional_encoding: none # else a small corpus is memorised by the times of its words\n"
    return f"""\
{comment(title)}
# Written by `asrtool new`. What is not named here has its default (asrtool/config.py).
features:
  source: {audio.source.value} # {audio.source.why}
  sampling_rate: {audio.sampling_rate.value} # {audio.sampling_rate.why}
  num_bins: {audio.num_bins.value} # {audio.num_bins.why}
data:
  train: {folder}/train.jsonl.gz
  dev: {folder}/{dev}.jsonl.gz
  batch_seconds: {training.batch_seconds.value} # {training.batch_seconds.why}
  max_seconds: {training.max_seconds.value:g} # {training.max_seconds.why}
  num_buckets: {training.num_buckets.value} # {training.num_buckets.why}
  workers: {training.workers.value} # {training.workers.why}
  augment: # the less data, the stronger
{speeds}{vtlp}\
    spec_augment:
      frequency_width: {SPEC_AUGMENT_WIDTHS[audio.sampling_rate.value]} # a quarter of the mel bins
      time_masks: {preset.time_masks}
      time_width: 25
      time_fraction: 0.2
      time_warp: 0 # costs time on a CPU, and gains little
      probability: 1
model: # {training.preset.why}
  normalise: utterance # new speakers and new microphones; a model that streams needs global
  subsampling: {preset.front_end}
  dim: {preset.dim}
  layers: {preset.layers}
  heads: {preset.heads}
  ff_dim: {preset.ff_dim}
  convolution: {preset.convolution}
  dropout: {preset.dropout}
{position if preset.name == "tiny" else ""}\
objective: {{intermediate_ctc: 0.3}} # regularises, and costs little
training:
  precision: {training.precision.value} # {training.precision.why}
  lr: {preset.lr:.1e}
  warmup_steps: {training.warmup_steps}
  max_steps: {training.max_steps.value} # {training.max_steps.why}
  validate_every: {training.validate_every}
  keep_best: 5
  log_every: {max(10, training.validate_every // 4)}
"""
