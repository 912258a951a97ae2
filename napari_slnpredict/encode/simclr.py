"""Contrastive learning of tiles: two views of one tile shall lie close, views of others far (Chen et al. 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_slnpredict.torch_door import import_torch

if TYPE_CHECKING:
    from torch import Tensor


def nt_xent(first: Tensor, second: Tensor, temperature: float = 0.2) -> Tensor:
    """Return the normalised-temperature cross-entropy of two sets of views, a scalar.

    For 2b unit vectors, view i's loss is the cross-entropy of choosing its partner among all the others by cosine over
    `temperature`. A collapsed network ends at ``log(2 b - 1)``.

    Parameters
    ----------
    first, second : (b, d)
        Row i of both comes from one tile. Of any precision; computed in float32.
    """
    torch = import_torch()
    b = len(first)
    vectors = torch.nn.functional.normalize(torch.cat([first, second]).float(), dim=1)  # (2 b, d)
    likeness = vectors @ vectors.T / temperature  # (2 b, 2 b)
    # A view is not its own neighbour; -inf before the soft-max, which half precision could not hold.
    itself = torch.eye(2 * b, dtype=torch.bool, device=likeness.device)
    likeness = likeness.masked_fill(itself, float("-inf"))
    partner = torch.arange(2 * b, device=likeness.device).roll(b)
    loss: Tensor = torch.nn.functional.cross_entropy(likeness, partner)
    return loss
