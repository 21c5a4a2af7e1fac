"""Pages of the app, one file a page."""
