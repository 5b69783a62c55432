"""The original InternVL layout (`model_type: internvl_chat`) to the native classes, and back.

`config` converts configurations, `weight_map` names and fused tensors, `files` reads and writes shards one tensor at a
time. `checkpoint` and the commands put them together.
"""
