"""The recipes of the tiny bases."""
