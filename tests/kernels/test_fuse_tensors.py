"""Upsampled scores under fuse are, to all that code can do with them, the tensor that PyTorch would have made."""

from __future__ import annotations

import copy
import io
import pickle
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcn_kernels import fuse
from fcn_kernels.fusion.lazy import is_lazy
from tests.kernels.fusing import COARSE, SKIP, TARGET, Program, assert_as_pytorch, assert_same, run, up


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * grad * ctx.saved_tensors[0]


class AsItIs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 3 * grad


def in_place(y: Tensor) -> Tensor:
    part = y[:, :, 2:9]
    y.mul_(2)
    return part


def in_place_on_a_part(y: Tensor) -> tuple[Tensor, Tensor]:
    part = y[:, 1:, ::2]
    part.mul_(2)
    return y, part


def in_place_on_a_detached(y: Tensor) -> Tensor:
    y.detach()[:, 0] = 5.0
    return y


def in_place_on_an_image(y: Tensor) -> Tensor:
    y[1].unsqueeze(0).squeeze(0).add_(1)
    return y


def in_place_after_a_cast(y: Tensor) -> tuple[Tensor, Tensor]:
    wide = y.double()
    y.zero_()
    return y, wide


def in_place_after_the_same_dtype(y: Tensor) -> Tensor:
    same = y.float()
    y.zero_()
    return same


def in_place_after_softmax(y: Tensor) -> tuple[Tensor, Tensor]:
    probabilities = y.softmax(1)
    y.zero_()
    return probabilities, y


def in_place_after_the_largest(y: Tensor) -> Any:
    largest = y.max(1)
    y.zero_()
    return tuple(largest)


def in_place_after_resizing(y: Tensor) -> Tensor:
    again = up(y)
    y.zero_()
    return again


def hooked(y: Tensor) -> Tensor:
    y.register_hook(lambda grad: 3 * grad)
    return F.cross_entropy(y, TARGET)


def retained(y: Tensor) -> Tensor:
    y.retain_grad()
    F.cross_entropy(y, TARGET).backward(retain_graph=True)
    assert y.grad is not None
    return y.grad


def referred_to(y: Tensor) -> tuple[Tensor, Tensor]:
    reference = weakref.ref(y)  # so that y cannot become another tensor
    y.mul_(2)
    read = y + 0
    y.mul_(2)
    assert reference() is y
    return read, y.argmax(1)


def module_hook(y: Tensor) -> Tensor:
    module = nn.Identity()
    module.register_full_backward_hook(lambda module, given, taken: (2 * given[0],))
    return F.cross_entropy(module(y), TARGET)


def attributes(y: Tensor) -> Any:
    y.note = "kept"  # type: ignore[attr-defined]
    y.add_(0)
    return y.note, y  # type: ignore[attr-defined]


def saved(y: Tensor) -> Tensor:
    file = io.BytesIO()
    torch.save(y.detach(), file)
    file.seek(0)
    return torch.load(file)  # type: ignore[no-any-return]


def written_over(y: Tensor) -> Tensor:
    with torch.no_grad():
        torch.add(SKIP, 1, out=y.detach())
    return y


def iterated(y: Tensor) -> Tensor:
    return torch.stack([image.argmax(0) for image in y])


PROGRAMS: dict[str, Program] = {
    "nothing": lambda y: y,
    "relu": lambda y: y.relu(),
    "mul": lambda y: 2 * y,
    "radd": lambda y: 1 + y,
    "cat": lambda y: torch.cat([y, SKIP, y], 1),
    "stack in a list in a tuple": lambda y: torch.stack([*(y, y)]),
    "permute": lambda y: y.permute(0, 2, 3, 1).reshape(-1, 3),
    "view": lambda y: y.view(2, -1),
    "flatten": lambda y: y.flatten(2),
    "channels_last": lambda y: y.contiguous(memory_format=torch.channels_last),
    "contiguous view": lambda y: y[:, :2].contiguous().view(2, -1),
    "narrower": lambda y: y.half(),
    "sum of all": lambda y: y.sum(),
    "largest of all": lambda y: y.max(),
    "maximum": lambda y: torch.max(y, SKIP),
    "largest along rows": lambda y: y.max(dim=2),
    "argmax of all": lambda y: y.argmax(),
    "argmax along columns": lambda y: y.argmax(-1),
    "argmax by axis": lambda y: y.argmax(axis=1),
    "two largest": lambda y: y.topk(2, 1),
    "smallest": lambda y: y.topk(1, 1, largest=False),
    "softmax over rows": lambda y: y.softmax(2),
    "softmax with a dtype": lambda y: y.softmax(1, dtype=torch.float64),
    "probability of a class": lambda y: y.softmax(1)[:, 1],
    "logarithms": lambda y: y.log_softmax(1),
    "entropy": lambda y: -(y.softmax(1) * y.log_softmax(1)).sum(1),
    "one index": lambda y: y[:, 1],
    "indices": lambda y: y[torch.tensor([1, 0])],
    "mask": lambda y: y[SKIP > 0],
    "none": lambda y: y[None],
    "nothing left": lambda y: y[:, :, 5:5],
    "squeeze": lambda y: y[:1].squeeze(),
    "squeeze of nothing": lambda y: y.squeeze(0),
    "unsqueeze": lambda y: y.unsqueeze(1),
    "cross-entropy of soft targets": lambda y: F.cross_entropy(y, SKIP.softmax(1)),
    "cross-entropy of one image": lambda y: F.cross_entropy(y[0].unsqueeze(0), TARGET[:1]),
    "cross-entropy of pixels": lambda y: F.cross_entropy(y.permute(0, 2, 3, 1).reshape(-1, 3), TARGET.flatten()),
    "cross-entropy of nothing": lambda y: F.cross_entropy(y, torch.full_like(TARGET, -100)),
    "cross-entropy, reduce": lambda y: F.cross_entropy(y, TARGET, reduce=False),
    "nll_loss of scores": lambda y: F.nll_loss(y, TARGET),
    "binary": lambda y: F.binary_cross_entropy_with_logits(y, SKIP.sigmoid()),
    "interpolate to more": lambda y: up(y, (31, 33)),
    "interpolate nearest": lambda y: F.interpolate(y, (31, 33)),
    "interpolate scaled by a little": lambda y: F.interpolate(y, scale_factor=1.01, mode="bilinear"),
    "conv2d": lambda y: F.conv2d(y, SKIP[:, :, :3, :3]),
    "pad": lambda y: F.pad(y, (1, 2)),
    "where": lambda y: torch.where(SKIP > 0, y, 0),
    "broadcast sum": lambda y: y + SKIP[:1],
    "sum": lambda y: y + SKIP,
    "sum, the other way": lambda y: SKIP + y,
    "sum in channels_last": lambda y: y + SKIP.contiguous(memory_format=torch.channels_last),
    "sum in channels_last, the other way": lambda y: SKIP.contiguous(memory_format=torch.channels_last) + y,
    "sum of a crop": lambda y: y + F.pad(SKIP, (2, 3, 1, 1))[:, :, 1:-1, 2:-3],
    "sum of a crop, the other way": lambda y: F.pad(SKIP, (2, 3, 1, 1))[:, :, 1:-1, 2:-3] + y,
    "sum with alpha": lambda y: torch.add(y, SKIP, alpha=2),
    "sum of both": lambda y: y + y,
    "autograd.Function": Square.apply,
    "autograd.Function, as it is": AsItIs.apply,
    "two autograd.Functions": lambda y: (AsItIs.apply(y), F.cross_entropy(y, TARGET)),
    "in place": in_place,
    "in place on a part": in_place_on_a_part,
    "in place on a detached": in_place_on_a_detached,
    "in place on an image": in_place_on_an_image,
    "in place after a cast": in_place_after_a_cast,
    "in place after the same dtype": in_place_after_the_same_dtype,
    "in place after softmax": in_place_after_softmax,
    "in place after the largest": in_place_after_the_largest,
    "in place after resizing": in_place_after_resizing,
    "iadd": lambda y: y.__iadd__(SKIP),
    "set items": lambda y: y.__setitem__((slice(None), 0), 1.0) or y,
    "hook": hooked,
    "retained gradient": retained,
    "module's hook": module_hook,
    "weak reference": referred_to,
    "attributes": attributes,
    "saved": saved,
    "pickled": lambda y: pickle.loads(pickle.dumps(y.detach())),
    "copied": lambda y: copy.copy(y.detach()),
    "copied deeply": lambda y: copy.deepcopy(y.detach()),
    "numpy": lambda y: y.detach().numpy().sum(),
    "dlpack": lambda y: torch.from_dlpack(y.detach()),
    "list": lambda y: y[0, 0].tolist()[0][0],
    "text": lambda y: repr(y.detach()),
    "data": lambda y: y.data,
    "gradient": lambda y: y.detach().grad is None,
    "out=": written_over,
    "iterated": iterated,
    "aten": lambda y: torch.ops.aten.mul_(y, 2.0),
    "vmap": lambda y: torch.func.vmap(lambda image: image * 2)(y),
    "strides before it is made": lambda y: [
        lazy.stride()
        for lazy in (
            y.softmax(1), y[:, :, 1:].log_softmax(1), y[:, :, ::2].double(), y.max(1)[0], up(y[:, :, 1:], (15, 20)),
            y[0].unsqueeze(0), y[..., 3:].detach(),
        )
    ],
    "metadata": lambda y: (
        y.shape, y.size(1), y.stride(), y.dtype, y.device, y.ndim, len(y), y.numel(), y.is_contiguous(), y.layout,
        y.is_contiguous(memory_format=torch.channels_last),
        y.is_leaf, y.requires_grad, y.grad_fn is None, y.is_floating_point(), y.nbytes, isinstance(y, Tensor),
    ),
}  # fmt: skip


LAYOUTS: dict[str, Program] = {
    "contiguous": lambda x: x * 1,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "some channels of channels_last": lambda x: torch.cat([x, x], 1).contiguous(memory_format=torch.channels_last)[
        :, :3
    ],
    "rows turned": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
}


@pytest.mark.filterwarnings("ignore:size_average and reduce")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_as_pytorch(name: str, layout: str) -> None:
    lazy = []

    def program(x: Tensor) -> Any:
        y = up(LAYOUTS[layout](x))
        lazy.append(is_lazy(y))
        return PROGRAMS[name](y)

    try:
        want = run(program, False)
    except RuntimeError as error:  # a view of another layout
        with pytest.raises(RuntimeError, match=str(error)[:20]):
            run(program, True)
    else:
        assert_as_pytorch(program, want)
    assert lazy == [False, True]


@pytest.mark.parametrize("wrong", [
    lambda y: F.cross_entropy(y, TARGET + 5),
    lambda y: F.cross_entropy(y, TARGET[:, 1:]),
    lambda y: F.cross_entropy(y, TARGET.to(torch.int16)),
    lambda y: F.cross_entropy(y, TARGET, torch.ones(4)),
    lambda y: F.cross_entropy(y, TARGET, label_smoothing=2.0),
    lambda y: F.cross_entropy(y, TARGET, reduction="average"),
    lambda y: F.cross_entropy(y, TARGET, nonsense=1),
    lambda y: y[:, :, ::-1],
    lambda y: y[5],
    lambda y: y[0, 0, 0, 0, 0],
    lambda y: y.argmax(7),
    lambda y: y + SKIP[:, :, 1:],
    lambda y: y.view(7, -1),
    lambda y: F.interpolate(y, (3, 3), scale_factor=2, mode="bilinear"),
    lambda y: F.interpolate(y, mode="bilinear"),
    lambda y: F.interpolate(y, (3,), mode="bilinear"),
    lambda y: y.numpy(),
    lambda y: y.no_such_attribute,
    lambda y: bool(y),
])  # fmt: skip
def test_errors_are_pytorchs(wrong: Program) -> None:
    with pytest.raises(Exception) as want:
        wrong(up(COARSE.clone().requires_grad_()))
    with fuse():
        y = up(COARSE.clone().requires_grad_())
    with pytest.raises(type(want.value)) as got:
        wrong(y)
    assert str(got.value).splitlines()[0] == str(want.value).splitlines()[0].replace(
        "'Tensor'", f"'{type(y).__name__}'"
    )


def test_errors_of_a_call_that_upsamples() -> None:
    for arguments in ({"size": (0, 3)}, {"size": (9, 9), "scale_factor": 2.0}, {"scale_factor": (2.0, 2.0, 2.0)}):
        with pytest.raises(Exception) as want:
            F.interpolate(COARSE, **arguments, mode="bilinear")  # type: ignore[arg-type]
        with fuse(), pytest.raises(type(want.value)) as got:
            F.interpolate(COARSE, **arguments, mode="bilinear")  # type: ignore[arg-type]
        assert str(got.value) == str(want.value)


def test_becomes_a_plain_tensor_when_it_is_made() -> None:
    with fuse():
        y = up(COARSE)
    assert is_lazy(y)
    before = id(y)
    y.add_(1)
    assert type(y) is Tensor
    assert id(y) == before


def test_scores_changed_in_place_are_refused() -> None:
    coarse = COARSE.clone()
    with fuse():
        y, kept = up(coarse), up(coarse)
        kept.add_(0)
        coarse.add_(1)
        with pytest.raises(RuntimeError, match="were changed in place before the upsampled ones were used"):
            y.argmax(1)
        with pytest.raises(RuntimeError, match="were changed in place before the upsampled ones were used"):
            y.relu()
    assert_same(kept, up(COARSE))


def test_inference_tensors_may_change() -> None:
    with torch.inference_mode(), fuse():
        coarse = COARSE.clone()
        y = up(coarse)
        coarse.zero_()
        assert is_lazy(y)
        assert_same(y.argmax(1), up(COARSE).argmax(1))
        assert y.is_inference()
        assert_same(y.relu(), up(COARSE).relu())


@pytest.mark.parametrize("inside", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("outside", [torch.no_grad, torch.enable_grad])
def test_gradients_as_where_it_was_upsampled(inside: Any, outside: Any) -> None:
    """Whether upsampled scores have a gradient is settled when they are upsampled, wherever they are made or read."""

    def program(read: Program) -> Program:
        def call(x: Tensor) -> Any:
            with inside():
                y = up(x)
            with outside():
                return read(y)

        return call

    for read in (lambda y: y.relu(), lambda y: y, lambda y: F.cross_entropy(y, TARGET), lambda y: y[:, :, 1:].double()):
        assert_as_pytorch(program(read))


def test_a_gradient_of_the_upsampled_scores_must_be_asked_for_before_the_loss() -> None:
    """As the docs say."""
    with fuse():
        y = up(COARSE.clone().requires_grad_())
        loss = F.cross_entropy(y, TARGET)
    with pytest.raises(RuntimeError, match="appears to not have been used in the graph"):
        torch.autograd.grad(loss, y)


def test_excluded_classes() -> None:
    """As the docs say: where PyTorch's interpolation makes NaN, the operators leave the class out."""
    coarse = COARSE.clone()
    coarse[:, 1] = -torch.inf
    target = torch.where(TARGET == 1, 0, TARGET)
    assert F.cross_entropy(up(coarse), target).isnan()
    with fuse():
        loss = F.cross_entropy(up(coarse), target)
    two = F.cross_entropy(up(coarse[:, [0, 2]]), target // 2)
    torch.testing.assert_close(loss, two)
