"""Broken inputs by the thousand: each must be read right or refused with a message that names it.

python -m tests.fuzzing --count 10000      # what `make fuzz` runs
python -m tests.fuzzing --first 4711 --count 1
"""
