"""A page to point at objects in videos, track them, and read what a model says of them: thin over `api.Captioner`."""
