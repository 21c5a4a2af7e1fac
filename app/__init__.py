"""The command line and the browser app: the only room that knows dash."""
