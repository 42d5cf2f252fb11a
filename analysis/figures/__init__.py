"""Figures: each a function from what it shows to a matplotlib figure, or None where there is nothing to draw."""
