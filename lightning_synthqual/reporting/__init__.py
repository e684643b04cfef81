"""Reports to loggers and files."""
