"""Licences that go on: what a model must say because of the encoder whose features it was trained on.

A bundle's ``encoder`` table says whose features the model takes; with ``licence``, ``notice`` and ``covers_trained`` it
also says on what terms (`encode.record.Encoder.entry` fills it). `save_bundle` applies the rule here, so that no way of
training can forget it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def inherit(encoder: Mapping[str, Any], licence: str, notice: str) -> tuple[str, str]:
    """Return licence and notice of a model trained on an encoder's features.

    Parameters
    ----------
    encoder : mapping
        ``name``, ``licence``, ``notice``, ``covers_trained``, each perhaps absent.
    licence, notice : str
        What the model's maker chose.

    Returns
    -------
    (str, str)
        The encoder's licence where its terms cover such models, else the maker's; the notice with the encoder's.
    """
    theirs = str(encoder.get("licence", ""))
    told = terms_of(str(encoder.get("name", "")), theirs, str(encoder.get("notice", "")))
    if encoder.get("covers_trained") is True:
        licence = theirs or licence
    if not encoder.get("notice") or told in notice:
        return licence, notice
    return licence, " ".join(part for part in (notice, told) if part)


def terms_of(name: str, licence: str, notice: str) -> str:
    """Return one sentence about an encoder's terms, for people."""
    terms = f" ({licence})" if licence else ""
    return f"Encoder {name}{terms}: {notice.rstrip('.')}." if notice else f"Encoder {name}{terms}."
