"""The gate: which precisions an encoder's features survive, measured and never guessed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.bundles.bundle import SHIPPED, load_bundle
from napari_slnpredict.encode.encoder import encoder_from_bundle, load_encoder
from napari_slnpredict.encode.features import features_digest
from napari_slnpredict.encode.gate import (
    Gate,
    centred_cosine,
    check_tiles,
    gate_path,
    objection,
    passed,
    read_gate,
    write_gate,
)
from napari_slnpredict.errors import UnsafeFile

from .made import make_encoder

RNG = np.random.default_rng(3)
REFERENCE = (100 + RNG.normal(size=(12, 8))).astype(np.float32)


def gate(error: float, precision: str = "openvino-bfloat16") -> Gate:
    noise = np.random.default_rng(4).normal(size=REFERENCE.shape) * error
    return Gate(precision, REFERENCE[:, :4], (REFERENCE + noise).astype(np.float32)[:, :4])


def test_a_common_part_hides_nothing() -> None:
    """Features that share a large mean would pass whatever is left of their differences."""
    wrong = REFERENCE + RNG.normal(size=REFERENCE.shape).astype(np.float32)
    plain = (REFERENCE * wrong).sum(1) / np.linalg.norm(REFERENCE, axis=1) / np.linalg.norm(wrong, axis=1)
    assert plain.min() > 0.999
    assert centred_cosine(REFERENCE, wrong) < 0.9
    assert centred_cosine(REFERENCE, REFERENCE) == pytest.approx(1.0)


def test_a_shift_of_all_features_is_seen() -> None:
    """A model trained on the reference would be given features that are all moved."""
    assert centred_cosine(REFERENCE, REFERENCE + np.float32(2.0)) < 0.99


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_passes_no_gate(bad: float) -> None:
    """Comparisons with NaN are false: a gate written the other way round would let it through."""
    features = REFERENCE.copy()
    features[3, 2] = bad
    with np.errstate(invalid="ignore"):
        assert Gate("bfloat16", REFERENCE, features).objection() != ""


def test_a_tile_that_is_the_mean_has_no_direction() -> None:
    """Equal features would be refused because one of them is exactly the mean."""
    rows = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], np.float32)
    assert centred_cosine(rows, rows) == 1.0


def test_the_limits() -> None:
    """A precision that ruins features would be used, or a harmless one refused."""
    assert gate(0.001).objection() == ""
    assert "0.999 is needed" in gate(0.3).objection()
    slight = gate(0.005)
    assert slight.objection(lambda features: np.array([0.5, 0.5])) == ""

    def sensitive(features: np.ndarray) -> np.ndarray:
        p = float(features is not slight.reference)
        return np.array([p, 1 - p])

    assert "probabilities change by 1.000" in slight.objection(sensitive)
    assert "probabilities" in slight.objection(lambda features: np.array([np.nan]) * features.sum())


def test_kept_and_found_again(tmp_path: Path) -> None:
    """Every start would measure anew; or a flipped bit would open the gate."""
    encoder, tiles = make_encoder(), check_tiles(load_encoder("hne-small"), 128)
    good, bad = gate(0.001), gate(0.3, "bfloat16")
    for one in (good, bad):
        write_gate(gate_path(tmp_path, encoder, one.precision, 128, tiles, "this cpu"), encoder, one)
    assert passed(tmp_path, encoder, good.precision)
    assert not passed(tmp_path, encoder, good.precision, lambda features: features[0] * 1000)
    assert not passed(tmp_path, encoder, "bfloat16")
    assert "needed" in (objection(tmp_path, encoder, "bfloat16") or "")
    assert objection(tmp_path, encoder, "openvino-float32") is None
    assert not passed(tmp_path, make_encoder("other"), good.precision)
    path = gate_path(tmp_path, encoder, good.precision, 128, tiles, "this cpu")
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    assert read_gate(path, encoder) is None
    assert not passed(tmp_path, encoder, good.precision)


def test_a_gate_is_of_one_processor_and_library(tmp_path: Path) -> None:
    """What was measured with one version would vouch for the next."""
    encoder, tiles = make_encoder(), check_tiles(load_encoder("hne-small"), 128)
    one, other = (gate_path(tmp_path, encoder, "bfloat16", 128, tiles, made_by) for made_by in ("a 1.0", "a 1.1"))
    assert one != other


def test_every_precision_has_features_of_its_own() -> None:
    """A bag in bfloat16 would be taken for one in float32."""
    names = ("float32", "openvino-float32", "openvino-bfloat16", "bfloat16")
    assert len({features_digest("e" * 64, name) for name in names}) == 4


def test_the_shipped_encoder_brings_its_tiles() -> None:
    """The gate would have nothing real to measure with; or the tiles would change the encoder's digest."""
    bundle = load_bundle(SHIPPED / "hne-small")
    encoder = encoder_from_bundle(bundle)
    assert encoder.check is not None
    tiles = check_tiles(encoder, encoder.tile_px)
    assert tiles.pixels.shape[1:] == (128, 128, 3)
    assert len(tiles.pixels) >= 12
    assert load_bundle(SHIPPED / "demo-sln").encoder["digest"] == encoder.digest


def test_other_encoders_borrow_tiles_of_their_own_size() -> None:
    """An encoder without check tiles would run ungated, or never in anything but float32."""
    tiles = check_tiles(load_encoder("random:test_resnet"), 64)
    assert tiles.pixels.shape[1:] == (64, 64, 3)
    assert tiles.digest != check_tiles(load_encoder("random:test_resnet"), 96).digest
    assert float(tiles.pixels.std()) > 10


def test_tiles_that_were_exchanged_are_refused(tmp_path: Path) -> None:
    """Somebody's white tiles would let any precision pass."""
    shipped = encoder_from_bundle(load_bundle(SHIPPED / "hne-small"))
    assert shipped.check is not None
    other = tmp_path / "tiles.safetensors"
    other.write_bytes(shipped.check.read_bytes()[:-1] + b"x")
    with pytest.raises(UnsafeFile):
        check_tiles(dataclasses.replace(shipped, check=other), 128)
