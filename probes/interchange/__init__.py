"""Interchange interventions on subspaces, beside the controls that they must be held against."""
