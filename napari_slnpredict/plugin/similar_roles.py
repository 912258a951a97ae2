"""What the layers of similar tiles say they are; apart, so that asking for it loads nothing."""

from __future__ import annotations

SIMILARITY, COMPONENTS = "similarity", "components"
SIMILAR_LAYERS = (SIMILARITY, COMPONENTS)
