"""Features of whole collections of videos, behind `extract-features`."""
