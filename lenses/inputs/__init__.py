"""Input attribution: which tokens a state is made of, by several methods."""
