"""Circuits: fast approximations of what patching finds, edges between parts, and how far they hold."""
