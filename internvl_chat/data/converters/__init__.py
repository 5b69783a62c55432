"""From other projects' data to this project's records: chat lists, detection sets, tracking folders."""
