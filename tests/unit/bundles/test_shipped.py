"""What is in the wheel: the shipped encoder, its licence and its card."""

from __future__ import annotations

import numpy as np

from napari_slnpredict.bundles.bundle import SHIPPED, load_bundle
from napari_slnpredict.encode.encoder import load_encoder
from napari_slnpredict.encode.trained import load_projection
from napari_slnpredict.phantom.scene import Tissue
from napari_slnpredict.phantom.tasks import make_slide
from napari_slnpredict.torch_door import import_torch


def embed(tiles: np.ndarray) -> np.ndarray:
    torch, encoder = import_torch(), load_encoder("hne-small")
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (encoder.mean, encoder.std))
    with torch.inference_mode():
        given = torch.from_numpy(np.array(tiles)).permute(0, 3, 1, 2).float() / 255
        return encoder.build()((given - mean) / std).numpy()


def test_the_encoder_is_what_the_demo_model_needs() -> None:
    """Wrong: the shipped encoder works at another scale or tile size than the design says, or has no descriptor."""
    encoder = load_encoder("hne-small")
    layer = load_projection(load_bundle(SHIPPED / "hne-small"))
    assert layer is not None
    assert layer.weight.shape == (128, 1280)
    assert (encoder.dim, encoder.tile_px, encoder.mpp, encoder.warning) == (1280, 128, (1.0, 1.0), "")


def test_licence_credits_and_warning_travel_with_it() -> None:
    """Wrong: the Apache notice is lost, the card claims too much, or training slides are not named."""
    bundle = load_bundle(SHIPPED / "hne-small")
    assert bundle.licence == "Apache-2.0"
    assert "LICENSE-Apache-2.0.txt" in bundle.files
    for words in ("tells nothing about a patient", "MobileNetV2", "PatchCamelyon", "Pathology Atlas", "license:"):
        assert words in bundle.card
    assert "tells nothing about a patient" in bundle.notice
    assert len(bundle.training["slides"]) > 100
    assert sum((SHIPPED / "hne-small" / name).stat().st_size for name in bundle.files) < 12e6


def test_reference_tiles_have_finite_and_distinct_features() -> None:
    """Wrong: half precision in the file broke the network, or all tiles look alike to it."""
    features = embed(load_bundle(SHIPPED / "hne-small").tensors("check/tiles.safetensors")["tiles"])
    assert np.isfinite(features).all()
    centred = features - features.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    likeness = centred @ centred.T
    assert np.abs(likeness - np.eye(len(likeness))).mean() < 0.6


def test_it_sees_aggression_across_laboratories() -> None:
    """Wrong: the features follow the stain and not the cells, so that no model can learn from them."""
    tiles, altered, labs = [], [], []
    for lab in ("A", "D"):
        slide = make_slide("sln", "positive", 77, lab, size=2.0)
        rows, columns = (side // 128 for side in slide.pixels.shape[:2])
        for row in range(rows):
            for column in range(columns):
                truth = slide.truth[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
                share = [(truth == kind).mean() for kind in (Tissue.NEST, Tissue.ALTERED)]
                if max(share) > 0.6:
                    tiles.append(slide.pixels[row * 128 : row * 128 + 128, column * 128 : column * 128 + 128])
                    altered.append(share[1] > share[0])
                    labs.append(lab)
    features, which, lab = embed(np.stack(tiles)), np.array(altered), np.array(labs)
    direction = features[which & (lab == "A")].mean(0) - features[~which & (lab == "A")].mean(0)
    score = features[lab == "D"] @ direction  # fitted on one laboratory, asked about the other
    truth = which[lab == "D"]
    assert truth.any()
    assert (score[truth][:, None] > score[~truth][None]).mean() > 0.9
