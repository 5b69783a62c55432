"""Runs that are killed at random moments, and compared with undisturbed ones."""
