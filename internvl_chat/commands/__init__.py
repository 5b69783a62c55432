"""The sub-commands of `python -m internvl_chat`.

Each module has `add_arguments(parser)` and `run(args)`. Heavy packages are imported inside `run`, so that `--help` and
a usage error cost nothing.
"""
