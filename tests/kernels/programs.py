"""Programs of upsampled scores [2, 3, 16, 20], for the tests of fuse: much of what code does with a tensor."""

from __future__ import annotations

import copy
import io
import pickle
import weakref
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.kernels.fusing import SKIP, TARGET, Program, up


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
