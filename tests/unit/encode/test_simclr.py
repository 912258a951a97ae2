"""The contrastive loss against plain float64 arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_slnpredict.encode.simclr import nt_xent
from napari_slnpredict.torch_door import import_torch


def reference(first: NDArray[np.float64], second: NDArray[np.float64], temperature: float) -> float:
    z = np.concatenate([first, second])
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    b, total = len(first), 0.0
    for i in range(2 * b):
        partner = (i + b) % (2 * b)
        others = [np.exp(z[i] @ z[k] / temperature) for k in range(2 * b) if k != i]
        total -= np.log(np.exp(z[i] @ z[partner] / temperature) / sum(others))
    return total / (2 * b)


@pytest.mark.parametrize("b", [1, 2, 7, 32])
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_equals_the_definition(b: int, temperature: float) -> None:
    """Wrong: the loss counts a view as its own neighbour, or pairs the wrong rows."""
    torch, rng = import_torch(), np.random.default_rng(b)
    first, second = rng.normal(size=(2, b, 16))
    mine = nt_xent(torch.from_numpy(first), torch.from_numpy(second), temperature)
    assert float(mine) == pytest.approx(reference(first, second, temperature), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("b", "value"), [(32, 4.14), (256, 6.24)])
def test_collapse_has_the_known_value(b: int, value: float) -> None:
    """Wrong: the value by which a training curve shows collapse is not log(2 b - 1)."""
    same = import_torch().ones(b, 8)
    assert float(nt_xent(same, same)) == pytest.approx(value, abs=0.005)


def test_gradient_is_finite_for_parallel_vectors() -> None:
    """Wrong: a batch of equal tiles makes the training NaN."""
    same = import_torch().ones(4, 8, requires_grad=True)
    nt_xent(same, same, 0.05).backward()
    assert bool(same.grad.isfinite().all())
