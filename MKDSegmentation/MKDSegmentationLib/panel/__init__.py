"""The sections of the panel, one per file."""
