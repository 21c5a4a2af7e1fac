"""Translators: maps fitted to states before they are read (tuned and Jacobian lenses)."""
