"""Going on from a probe: steering by its direction, ablating its units."""
