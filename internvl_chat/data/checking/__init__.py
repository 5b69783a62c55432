"""Finding what is wrong with a dataset before it costs a training run.

`check_meta` reads a meta JSON, every record and the header of every file it names, and reports all faults at once.
"""
