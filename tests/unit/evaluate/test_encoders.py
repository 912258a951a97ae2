"""Judging: what is planted is found, what is shuffled is chance, nothing seen is judged in silence."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from napari_slnpredict.errors import DataError
from napari_slnpredict.evaluate import encoders, stain_figures
from napari_slnpredict.evaluate.arms import Arm, function_arm
from napari_slnpredict.evaluate.comparison import ALL_SETS, Comparison, Failure
from napari_slnpredict.evaluate.encoders import judge
from napari_slnpredict.evaluate.figures import JudgeOptions
from napari_slnpredict.evaluate.overlap import picture_digest
from napari_slnpredict.evaluate.sets import JudgedSet, Sample
from napari_slnpredict.events import Event, Warn, run

from .made_tiles import Planted, corner, noise

FAST = JudgeOptions(draws=200, stain_tiles=0, near_um=600, far_um=1500, pairs=300, timed=False)
GOOD = function_arm("good", "corner", corner, 3)
BAD = function_arm("bad", "noise", noise, 6)


def told(*arms: Arm, sets: list[JudgedSet] | None = None, **given: object) -> tuple[Comparison, list[str]]:
    events: list[Event] = []
    sets = sets or [JudgedSet("planted", Planted())]
    options = {"baseline": "bad", "options": FAST, **given}
    found = run(judge(arms, sets, **options), events.append)  # type: ignore[arg-type]
    return found, [event.message for event in events if isinstance(event, Warn)]


@pytest.fixture(scope="module")
def compared() -> Comparison:
    return told(GOOD, BAD)[0]


@pytest.mark.parametrize("figure", ["probe AUC", "probe accuracy", "kNN accuracy", "precision@1", "precision@5"])
def test_planted_structure_is_found_and_noise_is_chance(compared: Comparison, figure: str) -> None:
    """A figure that cannot tell the two says nothing of real encoders either."""
    good, bad = (compared.score("planted", figure, name) for name in ("good", "bad"))
    assert good is not None
    assert bad is not None
    assert good.value == pytest.approx(1.0)
    assert abs(bad.value - bad.base_rate) < 0.15
    assert bad.low < bad.value < bad.high
    assert good.gain == pytest.approx(good.value - bad.value)
    assert 0 < good.gain_low < good.gain < good.gain_high
    assert np.isnan(bad.gain)
    assert good.groups == 12
    assert good.count == 144


def test_facts_say_what_was_done(compared: Comparison) -> None:
    """A figure without the number of patients, and what was left out of the search, cannot be judged."""
    (facts,) = compared.sets
    assert (facts.tiles, facts.groups, facts.grouping, facts.own) == (144, 12, "patients", "own slide")
    assert facts.split == "5 folds"
    assert dict(facts.classes) == {"a": 72, "b": 72}
    score = compared.score("planted", "precision@5", "good")
    assert score is not None
    assert "own slide out" in score.note
    cost = compared.score("planted", "bytes per tile", "good")
    assert cost is not None
    assert cost.value == 12


def test_place_is_judged_by_distance_on_the_slide() -> None:
    """Near and far mixed up would turn the AUC around."""

    class Placed(Planted):
        """The corner's brightness grows along the slide."""

        def __init__(self) -> None:
            super().__init__()
            step = self.table.centre_um[:, 0] / self.table.centre_um[:, 0].max() * 255
            self.pixels[:, :4, :4] = step[:, None, None, None].astype(np.uint8)

    found, _ = told(GOOD, BAD, sets=[JudgedSet("placed", Placed())])
    near, ratio = (found.score("placed", name, "good") for name in ("near/far AUC", "far/near distance ratio"))
    assert near is not None
    assert ratio is not None
    assert near.value > 0.95
    assert ratio.value > 1.5
    blind = found.score("placed", "near/far AUC", "bad")
    assert blind is not None
    assert abs(blind.value - 0.5) < 0.1


def test_a_split_is_kept() -> None:
    """Judged on training tiles, every encoder that remembers is perfect."""
    tiles = Planted()
    train, test = np.flatnonzero(tiles.table.slide < 8), np.flatnonzero(tiles.table.slide >= 8)
    seen: list[int] = []

    def watching(pixels: np.ndarray) -> np.ndarray:
        seen.append(len(pixels))
        return corner(pixels)

    found, _ = told(function_arm("good", "w", watching, 3), BAD, sets=[JudgedSet("planted", tiles, train, test)])
    score = found.score("planted", "probe AUC", "good")
    assert score is not None
    assert (score.count, score.groups) == (len(test), 4)
    assert "too narrow" in score.note
    assert found.sets[0].split == f"fitted on {len(train)}, judged on {len(test)} tiles"
    with pytest.raises(DataError, match="some in both"):
        Sample(JudgedSet("x", tiles, train, train[:5]), tiles=100, folds=5, seed=0)
    with pytest.raises(DataError, match="go together"):
        JudgedSet("x", tiles, train)


def test_sites_never_seen() -> None:
    """What a new laboratory would meet is judged by leaving each one out."""
    found, _ = told(GOOD, BAD, sets=[JudgedSet("planted", Planted(sites=3))])
    score = found.score("planted", "probe AUC, unseen site", "good")
    assert score is not None
    assert score.value == pytest.approx(1.0)
    assert "3 sites" in score.note


def test_sets_are_averaged() -> None:
    """The mean over sets must be drawn within each set, and hold what every arm has on two sets."""
    sets = [JudgedSet("one", Planted()), JudgedSet("two", Planted(seed=1, classes=3))]
    found, _ = told(GOOD, BAD, sets=sets)
    parts = [found.score(name, "probe AUC", "bad") for name in ("one", "two")]
    mean = found.score(ALL_SETS, "probe AUC", "bad")
    assert mean is not None
    assert mean.value == pytest.approx(np.mean([part.value for part in parts if part]))
    assert mean.high - mean.low < max(part.high - part.low for part in parts if part)
    assert mean.groups == 24
    precision = found.score(ALL_SETS, "precision@5", "bad")
    assert precision is not None
    assert precision.note == "mean of 2 sets; own slide out"
    assert found.set_names == ("one", "two", ALL_SETS)


def test_an_arm_that_fails_stops_no_other() -> None:
    """One network that runs out of memory would cost the night's comparison."""

    def broken(tiles: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of memory\nsomewhere")

    wrong = function_arm("wrong", "w", lambda tiles: np.full((len(tiles), 3), np.nan), 3)
    before = (Failure("absent", "", "MissingWeights", "not here"),)
    found, warnings = told(GOOD, function_arm("broken", "b", broken, 3), wrong, BAD, failures=before)
    assert [(failure.name, failure.kind) for failure in found.failures] == [
        ("absent", "MissingWeights"),
        ("broken", "RuntimeError"),
        ("wrong", "DataError"),
    ]
    assert [arm.name for arm in found.arms] == ["good", "bad"]
    assert any("broken left out on planted: out of memory" in text for text in warnings)
    assert found.score("planted", "probe AUC", "good") is not None


def test_a_set_that_fails_stops_no_other_and_none_is_an_error() -> None:
    """A damaged zip among five costs itself."""

    class Torn(Planted):
        def read(self, rows: np.ndarray) -> np.ndarray:
            raise DataError("cannot be decoded", file="a.png")

    torn = JudgedSet("torn", Torn())
    found, _ = told(GOOD, BAD, sets=[torn, JudgedSet("planted", Planted())])
    assert [(failure.name, failure.where) for failure in found.failures] == [("torn", "torn")]
    assert found.set_names == ("planted",)
    with pytest.raises(DataError, match=r"no set could be judged: a\.png"):
        told(GOOD, sets=[torn])


def test_nothing_seen_in_training_is_judged_unless_asked_for() -> None:
    """An encoder judged on its own training tiles looks better than it is."""
    seen = dataclasses.replace(GOOD, training={"slides": ["content3"], "patients": ["p3", "p4"]})
    with pytest.raises(DataError, match=r"good was trained on part of planted: 1 slides \(s3\), 2 patients"):
        told(seen, BAD)
    found, _ = told(seen, BAD, allow_overlap=True)
    marked = found.score("planted", "probe AUC", "good")
    assert marked is not None
    assert marked.note.startswith("OVERLAP: trained on 1 slides")
    tiles = Planted()
    unseen = np.flatnonzero(tiles.table.slide > 4)
    held = JudgedSet("planted", tiles, np.flatnonzero(tiles.table.slide <= 4), unseen)
    assert told(seen, BAD, sets=[held])[0].score("planted", "probe AUC", "good") is not None


def test_pictures_seen_in_training_are_known_by_name() -> None:
    """Tile sets without slides or patients would slip through."""
    tiles = Planted()
    tiles.table = dataclasses.replace(
        tiles.table, slide=np.full(144, -1), slides=(), names=tuple(f"{k}.png" for k in range(144))
    )
    arm = dataclasses.replace(GOOD, training={"files": [picture_digest("7.png")]})
    with pytest.raises(DataError, match=r"1 pictures \(7\.png\)"):
        told(arm, BAD, sets=[JudgedSet("pictures", tiles)])


def test_features_are_found_again(tmp_path: Path) -> None:
    """A run that was stopped after an hour would begin anew."""
    calls: list[int] = []

    def counted(tiles: np.ndarray) -> np.ndarray:
        calls.append(len(tiles))
        return corner(tiles)

    arm = function_arm("good", "counted", counted, 3)
    first, _ = told(arm, BAD, cache=tmp_path)
    assert calls == [144]
    again, _ = told(arm, BAD, cache=tmp_path)
    assert calls == [144]
    assert again.scores == pytest.approx(first.scores, nan_ok=True) or str(again.scores) == str(first.scores)
    for file in tmp_path.rglob("*.npy"):
        file.write_bytes(file.read_bytes()[:-9])
    told(arm, BAD, cache=tmp_path)
    assert calls == [144, 144]


def test_principal_components_are_fitted_on_training_tiles_alone() -> None:
    """Components that know the test tiles are transductive."""
    fits: list[int] = []
    arm = dataclasses.replace(GOOD, name="good@pca2", components=2)
    original = Arm.fitted

    def watched(self: Arm, known: np.ndarray) -> object:
        fits.append(len(known))
        return original(self, known)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Arm, "fitted", watched)
        found, _ = told(arm, BAD)
    assert max(fits) < 144
    score = found.score("planted", "probe AUC", "good@pca2")
    assert score is not None
    assert score.value == pytest.approx(1.0)
    cost = found.score("planted", "bytes per tile", "good@pca2")
    assert cost is not None
    assert cost.value == 8


def test_labels_that_do_not_do() -> None:
    """One class, or tiles of one slide, is a note, not a crash; figures by place stay."""
    one_class = Planted(classes=2)
    one_class.table = dataclasses.replace(one_class.table, label=np.zeros(144, np.int64), classes=("a",))
    found, _ = told(GOOD, BAD, sets=[JudgedSet("one", one_class)])
    assert "no figures by label" in found.sets[0].notes[0]
    assert found.score("one", "probe AUC", "good") is None
    assert found.score("one", "near/far AUC", "good") is not None


def test_names_and_emptiness() -> None:
    """Two arms of one name would overwrite each other's figures."""
    with pytest.raises(DataError, match="named twice"):
        told(GOOD, GOOD)
    with pytest.raises(DataError, match="two sets have one name"):
        told(GOOD, sets=[JudgedSet("x", Planted()), JudgedSet("x", Planted())])
    with pytest.raises(DataError, match="nothing to compare"):
        told()


def test_the_seed_decides_everything() -> None:
    """Two runs of one command must print the same report."""
    first, again = (told(GOOD, BAD)[0].scores for _ in range(2))
    assert str(first) == str(again)


def test_time_is_told_with_its_range() -> None:
    """A time without its spread says more of the machine's mood than of the encoder."""
    found, _ = told(GOOD, BAD, options=dataclasses.replace(FAST, timed=True))
    score = found.score("planted", "ms per tile", "good")
    assert score is not None
    assert 0 < score.low <= score.value <= score.high


def test_a_large_set_is_thinned_over_classes_and_groups() -> None:
    """The first thousand tiles would be one slide's."""
    tiles = Planted(patients=10, each=50)
    sample = Sample(JudgedSet("x", tiles), tiles=60, folds=5, seed=0)
    assert len(sample) == 60
    counts = np.bincount(sample.table.group, minlength=10)
    assert counts.min() == counts.max() == 6
    assert np.bincount(sample.table.label).tolist() == [30, 30]
    assert encoders.BASELINE == "colour"


class Dyed(Planted):
    """Tiles of two stains, so that they can be stained again; the class is in the structure, not in the colour."""

    tile_px = 48

    def __init__(self) -> None:
        super().__init__(patients=10, each=6)
        rng = np.random.default_rng(3)
        dyes = np.array([[0.65, 0.70, 0.29], [0.20, 0.93, 0.30]])
        dyes /= np.linalg.norm(dyes, axis=1, keepdims=True)
        amount = rng.gamma(2.0, 0.4, (60, 48, 48, 2)) + 0.1
        amount[:, :24] *= np.where(self.table.label == 1, 2.0, 1.0)[:, None, None, None]
        density = amount @ dyes
        self.pixels = np.clip(240 * np.exp(-density) - 1, 0, 255).astype(np.uint8)


def structure(tiles: np.ndarray) -> np.ndarray:
    """The ratio of darkness above to below: blind to stain; and a mark of each tile."""
    density = -np.log((tiles.astype(np.float64) + 1) / 256).mean(axis=3)
    halves = np.log(density[:, :24].mean(axis=(1, 2)) / density[:, 24:].mean(axis=(1, 2)))
    marks = density.reshape(len(tiles), 4, 12, 4, 12).mean(axis=(2, 4)).reshape(len(tiles), 16)
    marks /= marks.mean(axis=1, keepdims=True)
    return np.concatenate([halves[:, None], marks - 1], axis=1)


def tint(tiles: np.ndarray) -> np.ndarray:
    """Nothing but colour."""
    return tiles.reshape(len(tiles), -1, 3).mean(axis=1) / 255 - 0.5


def test_stain_robustness_tells_structure_from_tint() -> None:
    """The claim "robust to stain" needs a figure on which colour alone fails."""
    arms = (function_arm("structure", "s", structure, 17), function_arm("tint", "t", tint, 3))
    found, _ = told(
        *arms, sets=[JudgedSet("dyed", Dyed())], baseline="tint", options=dataclasses.replace(FAST, stain_tiles=60)
    )
    closer = {arm.name: found.score("dyed", "stain: same tile closer", arm.name) for arm in found.arms}
    assert closer["structure"] is not None
    assert closer["tint"] is not None
    assert closer["structure"].value > 0.8 > 0.3 > closer["tint"].value
    shift = {arm.name: found.score("dyed", "stain: shift over distance", arm.name) for arm in found.arms}
    assert shift["structure"] is not None
    assert shift["tint"] is not None
    assert shift["structure"].value < 0.5 < 1 < shift["tint"].value
    elsewhere = found.score("dyed", "stain: probe AUC, other stains", "structure")
    lost = found.score("dyed", "stain: probe AUC lost", "structure")
    assert elsewhere is not None
    assert lost is not None
    assert elsewhere.value > 0.9
    assert lost.value < 0.1
    within, between = (found.score("dyed", f"stain: cosine {side}", "structure") for side in ("within", "between"))
    assert within is not None
    assert between is not None
    assert within.value > between.value


def test_stains_are_as_different_as_laboratories() -> None:
    """Four times the same stain would make every encoder robust."""
    stains = [stain_figures.lab_stain(name) for name in stain_figures.STAINS]
    angles = [max(one.angle_to(other)) for k, one in enumerate(stains) for other in stains[:k]]
    assert min(angles) > 3
