"""A box becomes a track: objects that are given on one frame or more are followed through the video."""
