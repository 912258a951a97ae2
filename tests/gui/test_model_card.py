"""The card of a model in the dock."""

from __future__ import annotations

from typing import Any

import pytest
from qtpy.QtWidgets import QTextBrowser

pytestmark = pytest.mark.gui


def test_the_card_begins_with_the_licence(opened: Any) -> None:
    """A pathologist would use a model for a purpose its licence forbids, never having seen it."""
    (card,) = opened.dock.findChildren(QTextBrowser)[:1]
    assert card.toPlainText().split("\n")[0] == "Licence of the model: BSD-3-Clause."
    assert "Card" in card.toPlainText()
    assert "license:" not in card.toPlainText()
