"""Captions for whole collections of videos, behind `caption-videos`."""
