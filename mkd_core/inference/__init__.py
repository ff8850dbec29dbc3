"""From a volume to labels: the pipeline and what it needs."""
