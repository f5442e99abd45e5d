"""What lets deep models train: norms and initialisation that keep gradients alive, dropped layers, recomputation."""

import math

import pytest
import torch

from asrtool.config import ModelConfig
from asrtool.models.transformer import Block, TransformerEncoder

XAVIER = {"scheme": "depth_scaled", "exponent": 0.0}  # depth-scaled, but for the depth
DEPTH_SCALED = {"scheme": "depth_scaled"}


def encoder(**model):
    names = {"dim": 32, "heads": 4, "ff_dim": 128, "dropout": 0.0, "activation": "relu"}
    return TransformerEncoder(ModelConfig.model_validate(names | model))


def bottom_to_top(seed, **model):
    """Norm of the loss's gradient by the second layer's input, to that by the last layer's."""
    torch.manual_seed(seed)
    result, inputs = encoder(**model), []
    for block in result.blocks:
        block.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    y = result(torch.randn(2, 16, 32, requires_grad=True), torch.tensor([16, 16]))
    bottom, top = torch.autograd.grad((y * torch.randn_like(y)).sum(), [inputs[1], inputs[-1]])
    return math.log(bottom.norm() / top.norm())


def tendency(layers, norm, init, seeds=4):
    """The same, in the geometric mean over several draws."""
    ratios = [bottom_to_top(seed, layers=layers, norm=norm, init=init) for seed in range(seeds)]
    return math.exp(sum(ratios) / seeds)


@pytest.mark.parametrize("init", [{}, XAVIER], ids=["default", "xavier"])
def test_post_norm_gradients_shrink_towards_lower_layers_the_more_layers_there_are(init):
    """arXiv 1908.11365, section 3; 2002.04745, section 3. Measured: 0.9 at 6 layers, 0.5 at 24, 0.1 to 0.4 at 96."""
    shallow, *deep = (tendency(layers, "post", init) for layers in (3, 24, 48, 96))
    assert shallow > 0.8
    assert max(deep) < 0.75 * shallow
    assert deep[-1] < 0.75 * deep[0]


@pytest.mark.parametrize("layers", [24, 48, 96])
def test_depth_scaled_initialisation_preserves_the_gradient(layers):
    """Measured: 0.94 to 1.04 in single draws."""
    assert 0.85 < tendency(layers, "post", DEPTH_SCALED, seeds=2) < 1.15


@pytest.mark.parametrize("layers", [24, 48, 96])
@pytest.mark.parametrize("init", [{}, XAVIER, DEPTH_SCALED], ids=["default", "xavier", "depth_scaled"])
def test_pre_norm_preserves_the_gradient_with_any_initialisation(layers, init):
    """Measured: 1.0 to 1.8, the lower layers having more of it."""
    assert 0.95 < tendency(layers, "pre", init, seeds=1) < 2.5


def counted(model):
    """A list that grows by the number of a block each time it runs."""
    runs = []
    for number, block in enumerate(model.blocks):
        block.register_forward_pre_hook(lambda _, __, number=number: runs.append(number))
    return runs


def test_layer_drop_skips_its_share_of_the_blocks_in_training_only():
    model, x, lens = encoder(layers=10, layer_drop=0.3), torch.randn(1, 4, 32), torch.tensor([4])
    runs = counted(model)
    model.eval()(x, lens)
    assert runs == list(range(10))
    runs.clear()
    torch.manual_seed(11)
    for _ in range(100):
        model.train()(x, lens)
    assert 640 < len(runs) < 760  # of 1000, with a deviation of 14.5
    assert all(50 < runs.count(number) < 90 for number in range(10))


def test_a_dropped_layer_changes_nothing():
    model, x = encoder(layers=3, layer_drop=0.999999).train(), torch.randn(1, 4, 32)
    expected = model.norm(model._embed(x, torch.arange(4)))
    assert torch.equal(model(x, torch.tensor([4])), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activation_checkpointing_gives_bitwise_equal_gradients(make_model, transformer_kind, dtype):
    """With dropout and dropped layers too: what was drawn is drawn again."""
    results = []
    for recompute in (False, True):
        options = {"layers": 4, "dropout": 0.3, "layer_drop": 0.3, "activation_checkpointing": recompute}
        options |= (
            {"right_context": 1} if transformer_kind.get("mask") == "sliding" else {}
        )  # not one number for each layer
        model = make_model(**transformer_kind | options).train()
        runs = counted(model.encoder)
        torch.manual_seed(12)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            log_probs, _ = model(torch.randn(2, 40, 7), torch.tensor([40, 21]))
        forward = len(runs)
        log_probs.pow(2).mean().backward()
        assert len(runs) == forward * (1 + recompute)
        results.append([log_probs, *(p.grad for p in model.parameters())])
    assert any(grad is not None for grad in results[0][1:])
    for without, with_ in zip(*results, strict=True):
        assert (without is None and with_ is None) or torch.equal(without, with_)


def test_activation_checkpointing_saves_memory(make_model):
    def kept(recompute):
        sizes = []
        model = make_model(layers=6, activation_checkpointing=recompute)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            model(torch.randn(1, 400, 7), torch.tensor([400]))
        return sum(sizes)

    assert kept(True) < 0.5 * kept(False)


def test_a_block_is_pre_norm_or_post_norm():
    """Pre: x + f(norm(x)); post: norm(x + f(x)); first for the attention, then for the feed-forward layer."""
    x = torch.randn(1, 5, 32)
    mask = torch.ones(1, 5, dtype=torch.bool)
    for norm in ("pre", "post"):
        block = encoder(layers=1, norm=norm).blocks[0]
        assert isinstance(block, Block)
        for layer_norm in (block.attention_norm, block.ff_norm):
            torch.nn.init.normal_(layer_norm.weight), torch.nn.init.normal_(layer_norm.bias)
        y = x
        for branch, normalise in (
            (lambda z, block=block: block.attention(z, mask), block.attention_norm),
            (block.feed_forward, block.ff_norm),
        ):
            y = y + branch(normalise(y)) if norm == "pre" else normalise(y + branch(y))
        torch.testing.assert_close(block(x, mask), y)


@pytest.mark.parametrize("norm, kind, ends", [("pre", "none", 1), ("post", "none", 0), ("post", "interleaved", 1)])
def test_a_final_norm_follows_unless_the_last_block_ends_in_one(norm, kind, ends):
    model = encoder(layers=2, norm=norm, convolution={"kind": kind})
    assert isinstance(model.norm, torch.nn.LayerNorm) == bool(ends)
