"""Panels of the app, one file a method."""
