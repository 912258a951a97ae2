"""One process or several: which device each has, and how they agree.

Several processes train one encoder when somebody started them so: ``slnpredict pretrain --devices N``, ``accelerate
launch`` or ``torchrun``. Each works on its share of every batch; the first one alone judges, writes and talks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from napari_slnpredict.errors import ResourceError
from napari_slnpredict.torch_door import import_timm, import_torch

from .method import gather

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
PRECISIONS = ("no", "bf16", "fp16")


def process_number() -> int:
    """Return which of the processes of one training this is, from 0; known before torch is imported."""
    return int(os.environ.get("RANK") or 0)


def accelerator_for(device: str, precision: str) -> Any:
    """Return accelerate's Accelerator for a device as `engines.choose_device` takes it.

    Raises
    ------
    ResourceError
        No such device, or a precision it does not have.
    """
    torch = import_torch()
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    from .engines import choose_device

    chosen = choose_device(device).name
    if precision == "fp16" and chosen == "cpu":
        raise ResourceError("float16 needs a GPU", do="use --precision bf16 or no")
    alone = int(os.environ.get("WORLD_SIZE") or 1) == 1
    if alone:
        # accelerate keeps the first device and precision of a process for good; a window may train twice.
        AcceleratorState._reset_state(reset_partial_state=True)
    kind, _, number = chosen.partition(":")
    if alone and kind == "cuda" and number.isdigit():
        torch.cuda.set_device(int(number))
    return Accelerator(mixed_precision=precision, cpu=chosen == "cpu")


def agreed(accelerator: Any, make: Callable[[], T]) -> T:
    """Return what the first process makes, in every process: what they decide by must not differ in the last bit."""
    made: list[Any] = [make() if accelerator.is_main_process else None]
    if accelerator.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        broadcast_object_list(made)
    result: T = made[0]
    return result


def with_joint_statistics(module: Any, device: str) -> Any:
    """Return a module whose batch normalisation sees the batches of all processes.

    Otherwise a process's own statistics tell the network which tiles are its own, and a contrast is cheated.
    """
    torch = import_torch()
    if device != "cpu":
        # torch's own conversion would drop the activations that timm keeps inside such layers.
        return import_timm().layers.convert_sync_batchnorm(module)
    for child in module.children():
        if isinstance(child, torch.nn.modules.batchnorm._BatchNorm):
            _join(child)
        else:
            with_joint_statistics(child, device)
    return module


def _join(norm: Any) -> None:
    """Make one layer use joint statistics on CPUs, where torch's own synchronised layer does not work."""
    torch = import_torch()
    alone = norm.forward

    def forward(x: Tensor) -> Tensor:
        if not norm.training:
            own: Tensor = alone(x)
            return own
        places = [0, *range(2, x.dim())]
        moments = torch.stack([x.mean(dim=places), x.pow(2).mean(dim=places)])[None]  # (1, 2, channels)
        mean, square = gather(moments).mean(dim=0)
        variance = (square - mean.pow(2)).clamp_min(0)
        _remember(norm, mean.detach(), variance.detach(), x.numel() // x.shape[1])
        shape = (1, -1, *(1 for _ in places[1:]))
        scale = norm.weight / torch.sqrt(variance + norm.eps)
        out: Tensor = x * scale.reshape(shape) + (norm.bias - mean * scale).reshape(shape)
        for after in ("drop", "act"):  # timm keeps these inside its layer
            if hasattr(norm, after):
                out = getattr(norm, after)(out)
        return out

    norm.forward = forward


def _remember(norm: Any, mean: Tensor, variance: Tensor, own: int) -> None:
    torch = import_torch()
    count = own * torch.distributed.get_world_size()
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * count / max(1, count - 1), norm.momentum)
