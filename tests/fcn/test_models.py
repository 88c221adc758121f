from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fcn.networks.backbones import BACKBONES
from fcn.networks.backbones.vgg import vgg
from fcn.networks.geometry import output_size
from fcn.networks.models import FCN, ModelConfig, build_model, parameter_groups
from fcn.networks.scores import Scores
from fcn.networks.summary import describe
from fcn_kernels import BilinearGrid, upsample_add, upsample_cross_entropy
from tests.fcn import networks

DEPTHS = (2, 2, 3, 3, 3)


NARROW = vgg((3, 4, 4, 5, 6), DEPTHS, 8)  # VGG-16 with few channels
DIVISORS = {"alexnet": 32, "vgg16": 64, "vgg19": 32, "googlenet": 8}
SHALLOW = vgg((2,) * 5, (1,) * 5, 2, 3)  # one convolution per block: compiles in seconds


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "narrow", NARROW)
    monkeypatch.setitem(BACKBONES, "shallow", SHALLOW)
    for name, divisor in DIVISORS.items():
        monkeypatch.setitem(BACKBONES, f"narrow_{name}", networks.narrowed(BACKBONES[name], divisor))


def random_model(seed: int = 0, **options: Any) -> FCN:
    return networks.random_model(**{"backbone": "narrow", "seed": seed, "dropout": 0.5, **options})


# --- The networks written with plain PyTorch layers. ---


def assert_equal_networks(model: FCN, images: Tensor, logits: Tensor) -> None:
    """Scores, loss, labels, and the gradient of every parameter and of the image, in float64."""
    target = torch.randint(0, 3, (len(images), *images.shape[2:]))
    target[:, 0, 0] = 255
    target[-1, -1, -1] = 1  # At least one pixel counts.
    wanted = [images, *model.parameters()]
    loss = F.cross_entropy(logits, target, ignore_index=255)
    scores = model.scores(images)
    torch.testing.assert_close(scores.logits(), logits, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(model(images), logits, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(scores.loss(target), loss, rtol=1e-10, atol=1e-12)
    expected = torch.autograd.grad(loss, wanted)
    actual = torch.autograd.grad(scores.loss(target), wanted)
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-12)
    if min(images.shape[2:]) > 40:
        assert all(gradient.abs().max() > 0 for gradient in expected[1:])
    labels, confidence = scores.labels(confidence=True)
    assert torch.equal(labels.long(), logits.argmax(1))
    torch.testing.assert_close(confidence, logits.softmax(1).amax(1), rtol=1e-9, atol=1e-12)


OFFICIAL_SIZES = {"alexnet": [(1, 1), (45, 90)], "vgg16": [(1, 1), (37, 64), (61, 90)], "vgg19": [(40, 33)],
                  "googlenet": [(31, 64), (75, 90)]}  # fmt: skip


@pytest.mark.parametrize(("stride", "at_once"), [(32, False), (16, False), (8, False), (8, True)])
@pytest.mark.parametrize("backbone", list(OFFICIAL_SIZES))
def test_official_networks_equal_plain_pytorch(backbone: str, stride: int, at_once: bool) -> None:
    model = networks.random_model(f"narrow_{backbone}", stride=stride, pad="official", at_once=at_once).double()
    p = networks.published_parameters(model)
    for size in OFFICIAL_SIZES[backbone]:
        images = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
        logits = networks.official(backbone, p, images, stride, (0.01, 0.0001) if at_once else (1.0, 1.0))
        assert_equal_networks(model, images, logits)


@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_scores_of_every_odd_size_equal_plain_pytorch(data: st.DataObject) -> None:
    backbone = data.draw(st.sampled_from(list(OFFICIAL_SIZES)))
    stride = data.draw(st.sampled_from((32, 16, 8)))
    filters = data.draw(st.tuples(*[st.sampled_from(("fixed", "diagonal", "dense"))] * 2))
    height, width = (data.draw(st.integers(31, 130)) for _ in range(2))
    model = networks.random_model(
        f"narrow_{backbone}", stride=stride, pad="official", upsampling=filters[0], last_upsampling=filters[1]
    ).double()
    images = torch.randn(1, 3, height, width, dtype=torch.float64)
    with torch.no_grad():
        logits = networks.official(backbone, networks.published_parameters(model), images, stride)
        torch.testing.assert_close(model(images), logits, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "filters", [("diagonal", "fixed"), ("dense", "fixed"), ("diagonal", "diagonal"), ("dense",) * 2]
)
def test_learned_upsampling_equals_plain_pytorch(filters: tuple[str, str]) -> None:
    model = networks.random_model(
        "narrow_vgg16", stride=8, pad="official", upsampling=filters[0], last_upsampling=filters[1]
    ).double()
    names = {name for name in model.state_dict() if "upscore" in name}
    assert names == {"head.upscore2.weight", "head.upscore_pool4.weight"} | (
        {"head.upscore8.weight"} if filters[1] != "fixed" else set()
    )
    images = torch.randn(2, 3, 37, 54, dtype=torch.float64, requires_grad=True)
    assert_equal_networks(model, images, networks.official("vgg16", networks.published_parameters(model), images, 8))


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_padding_same_is_interpolation(stride: int) -> None:
    """For images whose sides are multiples of 32."""
    model = networks.random_model("narrow_vgg16", stride=stride).double()
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64, requires_grad=True)
    p = networks.published_parameters(model)
    maps = networks.vgg(p, images, DEPTHS, 1, 3)
    x = F.conv2d(maps["fc7"], p["score_fr.weight"], p["score_fr.bias"])
    for skip in ("pool4", "pool3")[: {32: 0, 16: 1, 8: 2}[stride]]:
        skipped = F.conv2d(maps[skip], p[f"score_{skip}.weight"], p[f"score_{skip}.bias"])
        x = F.interpolate(x, scale_factor=2, mode="bilinear") + skipped
    assert_equal_networks(model, images, F.interpolate(x, images.shape[2:], mode="bilinear"))


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("pad", ["official", "same"])
@pytest.mark.parametrize("backbone", list(OFFICIAL_SIZES))
def test_streams_are_aligned(backbone: str, pad: str, stride: int) -> None:
    """Where each map holds the image coordinates of its cells, so do the scores, as many times as there are streams."""
    model = build_model(ModelConfig(f"narrow_{backbone}", stride, 2, pad)).double()
    height, width = 123, 90
    for stream in model.head.streams:
        torch.nn.init.constant_(model.head.score(stream).weight, 1 / stream.channels)
    maps = {}
    for stream in model.head.streams:
        rows, columns = (
            torch.arange(output_size(model.backbone.path(stream.tap), size), dtype=torch.float64)
            * float(stream.position.scale) + float(stream.position.shift)
            for size in (height, width)
        )  # fmt: skip
        maps[stream.tap] = (3 * rows[:, None] + columns).expand(1, stream.channels, -1, -1)
    logits = model.head(maps, (height, width)).logits()[0, 0]
    expected = 3 * torch.arange(height)[:, None] + torch.arange(width)
    inside = slice(34, 56)  # Between centers of cells of every stream.
    torch.testing.assert_close(logits[inside, inside], len(maps) * expected[inside, inside].double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("pad", ["official", "same"])
@pytest.mark.parametrize("backbone", ["narrow_vgg16", "narrow_alexnet", "narrow_googlenet"])
def test_learned_upsampling_starts_as_fixed(backbone: str, pad: str) -> None:
    fixed = networks.random_model(backbone, stride=8, pad=pad).double()
    images = torch.randn(1, 3, 70, 45, dtype=torch.float64)
    for filters in (("diagonal", "fixed"), ("dense", "dense"), ("fixed", "diagonal")):
        options: dict[str, Any] = {"upsampling": filters[0], "last_upsampling": filters[1]}
        learned = build_model(ModelConfig(backbone, 8, 3, pad, dropout=0.0, **options)).double()
        assert all("upscore" in name for name in learned.init_from(fixed))
        torch.testing.assert_close(learned(images), fixed(images), rtol=1e-10, atol=1e-10)
        scores = learned.scores(images)
        assert (scores.coarse.shape[2:] == images.shape[2:]) == (filters[1] != "fixed")


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("pad", ["official", "same"])
@pytest.mark.parametrize("backbone", ["narrow", "small", "small_batchnorm"])
def test_any_size_in_same_size_out(backbone: str, pad: str, stride: int) -> None:
    model = random_model(backbone=backbone, stride=stride, pad=pad, in_channels=1).eval()
    for height, width in ((1, 1), (1, 40), (31, 2), (33, 65)):
        images = torch.randn(2, 1, height, width)
        logits = model(images)
        assert logits.shape == (2, 3, height, width)
        assert logits.isfinite().all()
        # Images of a batch do not see each other.
        torch.testing.assert_close(logits[1:], model(images[1:]), rtol=1e-4, atol=1e-4)


def test_no_full_resolution_scores_before_logits() -> None:
    scores = random_model(stride=8).scores(torch.randn(1, 3, 64, 96))
    assert scores.coarse.shape == (1, 3, 8, 12)
    assert scores.grid.size == (64, 96)


def test_channels_last_gives_the_same() -> None:
    model = random_model(stride=8).eval()
    images = torch.randn(2, 3, 45, 70)
    expected = model(images)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(model(images.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pad", ["official", "same"])
def test_compiles_as_one_graph_for_all_sizes(pad: str) -> None:
    model = random_model(backbone="shallow", stride=8, pad=pad, dropout=0.0)

    def loss(images: Tensor, target: Tensor) -> Tensor:
        return model.scores(images).loss(target)

    compiled: Callable[..., Tensor] = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in ((40, 61), (75, 33)):
        images, target = torch.randn(2, 3, *size), torch.randint(0, 3, (2, *size))
        torch.testing.assert_close(compiled(images, target), loss(images, target))
        parameters = list(model.parameters())
        actual = torch.autograd.grad(compiled(images, target), parameters)
        torch.testing.assert_close(actual, torch.autograd.grad(loss(images, target), parameters))


def test_bfloat16_autocast() -> None:
    model = random_model(stride=8, dropout=0.0)
    images, target = torch.randn(2, 3, 40, 61), torch.randint(0, 3, (2, 40, 61))
    expected = model.scores(images).loss(target)
    with torch.autocast("cpu", torch.bfloat16):
        scores = model.scores(images)
        loss = scores.loss(target)
    assert scores.coarse.dtype == torch.bfloat16
    torch.testing.assert_close(loss.float(), expected, rtol=0.05, atol=0.02)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)


# --- Staged training. ---


def test_new_skips_leave_the_coarse_scores_unchanged() -> None:
    images = torch.randn(2, 3, 70, 45)
    for pad in ("official", "same"):
        previous = random_model(stride=32, pad=pad).eval()
        for stride, skip in ((16, "score_pool4"), (8, "score_pool3")):
            model = build_model(ModelConfig("narrow", stride, 3, pad)).eval()
            assert model.init_from(previous) == [f"head.{skip}.weight", f"head.{skip}.bias"]
            coarse = previous.scores(images).coarse
            actual = model.scores(images).coarse
            expected = upsample_add(
                coarse,
                grid=model.head.upsample(model.head.fusions[-1]).geometry.grid((actual.shape[2], actual.shape[3])),
            )
            torch.testing.assert_close(actual, expected, rtol=0, atol=0)
            # The new skip learns from the first step on.
            gradient = torch.autograd.grad(
                model.scores(images).logits().square().sum(), getattr(model.head, skip).weight
            )
            assert gradient[0].abs().max() > 0
            previous = model


def test_two_steps_of_upsampling_differ_from_one_by_the_curvature_only() -> None:
    """x2 then x16 rounds the corners of x32's linear pieces: by at most an eighth of the scores' second differences."""
    images = torch.randn(1, 3, 160, 224)
    stage32 = random_model(stride=32).double().eval()
    stage16 = build_model(ModelConfig("narrow", 16, 3)).double().eval()
    stage16.init_from(stage32)
    coarse = F.pad(stage32.scores(images.double()).coarse, (1, 1, 1, 1), mode="replicate")
    bound = (coarse.diff(n=2, dim=2).abs().max() + coarse.diff(n=2, dim=3).abs().max()) / 8
    difference = (stage16(images.double()) - stage32(images.double())).abs().max()
    assert 0 < difference <= bound + 1e-12


def test_init_from_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match=r"head.score_fr.weight is \(4, 8, 1, 1\) here and \(3, 8, 1, 1\) there"):
        random_model(classes=4).init_from(random_model(stride=32))


# --- Parameters. ---


def test_published_number_of_parameters() -> None:
    counts = {}
    for stride in (32, 16, 8):
        with torch.device("meta"):
            model = build_model(ModelConfig("vgg16", stride, 21, "official"))
        counts[stride] = sum(p.numel() for p in model.parameters())
        rows = describe(model)
        assert sum(row.parameters for row in rows) == counts[stride]
    assert counts == {32: 134_346_581, 16: 134_346_581 + 513 * 21, 8: 134_346_581 + 513 * 21 + 257 * 21}


def test_state_dict_names_are_the_published_ones() -> None:
    names = [f"conv{block}_{index}" for block, depth in enumerate(DEPTHS, 1) for index in range(1, depth + 1)]
    names = [f"backbone.{name}" for name in (*names, "fc6", "fc7")] + [
        "head.score_fr",
        "head.score_pool4",
        "head.score_pool3",
    ]
    assert list(random_model().state_dict()) == [f"{name}.{part}" for name in names for part in ("weight", "bias")]


def test_small_is_small() -> None:
    model = build_model(ModelConfig("small", 8))
    assert 200_000 < sum(p.numel() for p in model.parameters()) < 300_000


def test_batch_norm_follows_every_convolution_of_the_blocks() -> None:
    model = build_model(ModelConfig("small_batchnorm", 8))
    norms = [name for name, module in model.backbone.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms == [f"{layer.name}_norm" for layer in model.backbone.layers if layer.name.startswith("conv")]
    # One image of 32 pixels leaves fc6 and fc7 a single cell, of which no statistics could be made.
    loss = model.train().scores(torch.randn(1, 3, 32, 32)).loss(torch.zeros(1, 32, 32).long())
    loss.backward()


@pytest.mark.parametrize("in_channels", [1, 3])
def test_maps_are_channels_last(in_channels: int) -> None:
    features = build_model(ModelConfig("small", 8, in_channels=in_channels)).backbone(
        torch.randn(2, in_channels, 64, 64)
    )
    assert all(map_.is_contiguous(memory_format=torch.channels_last) for map_ in features.values())


def test_initial_values() -> None:
    torch.manual_seed(0)
    model = build_model(ModelConfig("small_batchnorm", 8))
    for name, parameter in model.named_parameters():
        if "score" in name or name.endswith("bias"):
            assert parameter.abs().max() == 0, name
        elif parameter.dim() == 4:
            fan_in = parameter[0].numel()
            assert parameter.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.15), name
    assert model.scores(torch.randn(1, 3, 32, 32)).loss(torch.zeros(1, 32, 32).long()).item() == pytest.approx(
        3.0445224
    )


def test_describe() -> None:
    rows = {row.layer: row for row in describe(random_model(stride=8, pad="official", classes=21))}
    assert (rows["fc6"].kernel_size, rows["fc6"].receptive_field, rows["fc6"].total_stride) == (7, 404, 32)
    assert (rows["pool3"].receptive_field, rows["pool3"].total_stride, rows["pool3"].parameters) == (44, 8, 0)
    assert rows["score_pool3"].parameters == 21 * (4 + 1)
    assert (rows["upscore8"].kind, rows["upscore8"].kernel_size, rows["upscore8"].total_stride) == (
        "conv_transpose",
        16,
        1,
    )
    model = build_model(ModelConfig("small_batchnorm"))
    assert sum(row.parameters for row in describe(model)) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("backbone", ["narrow", "small", "small_batchnorm"])
def test_parameter_groups(backbone: str) -> None:
    model = random_model(backbone=backbone)
    model.head.score_fr.weight.requires_grad_(False)
    groups = {group["name"]: group for group in parameter_groups(model, 0.1, 5e-4)}
    members = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "weights": (0.1, 5e-4),
        "biases": (0.2, 0.0),
        **({"scales": (0.1, 0.0)} if backbone == "small_batchnorm" else {}),
    }
    assert {id(p) for p in groups["biases"]["params"]} == {
        id(p) for name, p in model.named_parameters() if name.endswith("bias")
    }
    torch.optim.SGD(list(groups.values()), lr=1.0)  # Accepts the groups.


def test_biases_of_a_trunk_may_learn_as_weights_do() -> None:
    """The authors' solver for AlexNet."""
    model = random_model(backbone="narrow")
    groups = parameter_groups(model, 0.1, 5e-4, biases="plain")
    settings = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        doubled = name.startswith("head.") and name.endswith("bias")
        assert settings[id(parameter)] == ((0.2, 0.0) if doubled else (0.1, 5e-4)), name


def test_dropout_is_on_in_training_only() -> None:
    model = random_model(stride=32, dropout=0.5)
    images = torch.randn(1, 3, 64, 64)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


# --- Errors. ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "vgg"}, "backbone must be one of .*'vgg16'.* got 'vgg'"),
        ({"stride": 2}, "stride must be one of .* got 2"),
        ({"classes": 1}, "classes must be at least 2, got 1"),
        ({"pad": "valid"}, "pad must be one of .* got 'valid'"),
        ({"in_channels": 0}, "in_channels must be at least 1"),
        ({"dropout": 1.0}, "dropout must be in"),
    ],
)
def test_wrong_config(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(ModelConfig(**{"backbone": "narrow", **options}))


def test_wrong_images() -> None:
    model = random_model()
    with pytest.raises(ValueError, match=r"\[N, 3, H, W\], got shape \(1, 1, 8, 8\)"):
        model.scores(torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="at least one pixel"):
        model.scores(torch.zeros(1, 3, 0, 8))
    with pytest.raises(TypeError, match="uint8"):
        model.scores(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="target"):
        model.scores(torch.zeros(1, 3, 8, 8)).loss(torch.zeros(1, 8, 9).long())


# --- Scores. ---


def test_scores_options_reach_the_loss() -> None:
    torch.manual_seed(0)
    scores: Scores = random_model().scores(torch.randn(2, 3, 24, 30))
    target = torch.randint(0, 3, (2, 24, 30))
    target[0, :5] = 9
    weight, pixel_weight = torch.tensor([1.0, 2.0, 0.5]), torch.rand(2, 24, 30)
    options: dict[str, Any] = {"ignore_index": 9, "label_smoothing": 0.1}
    expected = F.cross_entropy(scores.logits(), target, weight, reduction="none", **options) * pixel_weight
    actual = scores.loss(target, weight, pixel_weight=pixel_weight, reduction="sum", **options)
    torch.testing.assert_close(actual, expected.sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backbone", ["small", "small_batchnorm"])
def test_small_learns_from_scratch(backbone: str) -> None:
    """A disk on a noisy ground, 100 steps: a few seconds."""
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    model = build_model(ModelConfig(backbone, 8, 2, in_channels=1, dropout=0.0))
    optimizer = torch.optim.AdamW(parameter_groups(model, 3e-3, 1e-4))

    def batch() -> tuple[Tensor, Tensor]:
        centers = torch.randint(16, 48, (4, 2, 1, 1))
        target = ((rows - centers[:, 0]) ** 2 + (columns - centers[:, 1]) ** 2 < 144).long()
        return target[:, None] + 0.5 * torch.randn(4, 1, 64, 64), target

    for _ in range(100):
        images, target = batch()
        optimizer.zero_grad()
        model.scores(images).loss(target).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    images, target = batch()
    labels = model.eval().scores(images).labels()
    inter, union = ((labels == 1) & (target == 1)).sum(), ((labels == 1) | (target == 1)).sum()
    assert inter / union > 0.8


def test_scores_of_every_pixel_take_the_loss_that_needs_no_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = BilinearGrid.interpolate((6, 7), (6, 7))
    coarse, target = torch.randn(2, 3, 6, 7, requires_grad=True), torch.randint(0, 3, (2, 6, 7))
    options: dict[str, Any] = {"pixel_weight": torch.rand(2, 6, 7), "label_smoothing": 0.1, "ignore_index": 1}
    want = upsample_cross_entropy(coarse, target, torch.tensor([1.0, 2, 3]), grid=grid, **options)
    monkeypatch.delattr("fcn.networks.scores.upsample_cross_entropy")
    got = Scores(coarse, grid).loss(target, torch.tensor([1.0, 2, 3]), **options)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, coarse), torch.autograd.grad(want, coarse))
    with pytest.raises(NameError):  # a shift alone is no identity
        Scores(coarse, BilinearGrid((6, 7), (1, 1), (1, 0), (1, 1), "clamp")).loss(target)
