"""Experiments that reproduce the paper's claims on data that everyone can generate."""
