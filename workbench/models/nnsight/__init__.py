"""Engine "nnsight": each pass is one nnsight trace, here or on NDIF."""
