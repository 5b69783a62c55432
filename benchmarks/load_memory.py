"""Peak host memory of loading a checkpoint of about 1 GB in two shards, against the bound that the loader promises.

    python benchmarks/load_memory.py [--layout original|hf] [--dtype float32|bfloat16] [--device cpu|meta]

The checkpoint is synthetic and written to a temporary folder, in the original layout with InternLM2's fused wqkv (the
layout that needs the most work). Loading runs in a process of its own; what is compared is the growth of its resident
memory from before the load to its peak, every page of the weights touched once. Bound: the loaded model + 1.3 times
the larger shard. With `--device meta` the weights go to a device without memory, which stands for a GPU: what is left
is what each rank of a machine takes of the host's memory, 1.3 times the larger shard at most.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

MIB = 2**20
WIDTH, LAYERS, HEADS, KV_HEADS, INNER, VOCAB = 1024, 14, 16, 8, 4096, 9000

CONFIG = {
    "architectures": ["InternVLChatModel"],
    "model_type": "internvl_chat",
    "downsample_ratio": 0.5,
    "force_image_size": 224,
    "llm_config": {
        "architectures": ["InternLM2ForCausalLM"],
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "intermediate_size": INNER,
        "vocab_size": VOCAB,
    },
    "template": "internlm2-chat",
    "vision_config": {
        "hidden_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "intermediate_size": 2048,
        "image_size": 224,
        "patch_size": 14,
        "qkv_bias": True,
        "qk_normalization": False,
        "norm_type": "layer_norm",
    },
}


def write_checkpoint(folder: Path, layout: str) -> int:
    """Two shards of fp32 weights; returns the bytes of the larger."""
    import torch

    from internvl_chat.model.conversion.weight_files import LazyTensor, write_weights
    from internvl_chat.model.families.internvl.original import native_config, native_to_hub, weight_map
    from internvl_chat.model.loading import expected_shapes

    config = native_config(CONFIG, folder)

    def draw(shape: torch.Size) -> LazyTensor:
        return LazyTensor(shape, torch.float32, lambda: torch.randn(shape) * 0.02)

    native = {name: draw(shape) for name, shape in expected_shapes(config).items()}
    if layout == "original":
        tensors, fields = weight_map(config).to_original(native), json.dumps(CONFIG)
    else:
        tensors = {native_to_hub(name): tensor for name, tensor in native.items()}
        fields = config.to_json_string()
    (folder / "config.json").write_text(fields)
    write_weights(folder, tensors, max_shard_bytes=sum(t.nbytes for t in tensors.values()) * 51 // 100)
    return max(path.stat().st_size for path in folder.glob("*.safetensors"))


def resident_bytes() -> int:
    fields = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) * 1024


def measure(folder: Path, dtype: str, device: str) -> None:
    """Load in this process and print JSON: bytes before, at the peak, and of the model."""
    import torch

    from internvl_chat.model.checkpoint import load_captioner

    before = peak = resident_bytes()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, resident_bytes())
            time.sleep(0.002)

    # A daemon: a load that fails must not be waited for.
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    started = time.monotonic()
    model = load_captioner(folder, dtype=getattr(torch, dtype), device=torch.device(device))
    for parameter in model.parameters() if device == "cpu" else ():
        parameter.view(-1)[:: 4096 // parameter.element_size()].sum()  # a mapped page counts once it is touched
    seconds = time.monotonic() - started
    done.set()
    watcher.join()
    peak = max(peak, resident_bytes())
    size = sum(p.nbytes for p in model.parameters() if p.device.type != "meta")
    sys.stdout.write(json.dumps({"growth": peak - before, "model": size, "seconds": seconds}) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=("original", "hf"), default="original")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", choices=("cpu", "meta"), default="cpu")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure, args.dtype, args.device)
        return 0
    with tempfile.TemporaryDirectory() as name:
        shard = write_checkpoint(Path(name), args.layout)
        command = [sys.executable, __file__, "--measure", name, "--dtype", args.dtype, "--device", args.device]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(run.stdout.splitlines()[-1])
    bound = result["model"] + 1.3 * shard
    sys.stdout.write(
        f"{args.layout} layout to {args.dtype} on {args.device}: model {result['model'] / MIB:.0f} MiB, "
        f"larger shard {shard / MIB:.0f} MiB, peak growth {result['growth'] / MIB:.0f} MiB, "
        f"bound {bound / MIB:.0f} MiB, {result['seconds']:.1f} s\n"
    )
    return 0 if result["growth"] <= bound else 1


if __name__ == "__main__":
    sys.exit(main())
