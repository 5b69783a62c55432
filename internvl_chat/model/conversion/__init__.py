"""An original layout to the native classes, and back.

`weight_map` converts names and fused tensors by a family's rules, `weight_files` reads and writes shards one tensor at
a time. `checkpoint` and the commands put them together.
"""
