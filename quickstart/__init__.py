"""The embedded default: a tiny base model, a dataset whose truth is known, and the whole path over both."""
