"""Scores that other programs made, shown on our slides."""
