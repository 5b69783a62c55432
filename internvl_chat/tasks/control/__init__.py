"""Whether captions follow the box: each clip with its own track, with another object's, and with none."""

from internvl_chat.tasks.control.benchmark_of_pairs import read as read
