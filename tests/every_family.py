"""Every family in miniature, and of InternVL2 every language model and ViT, by its recipe: three steps, merged, asked.

    make families

A miniature of each (InternVL2 1B Qwen2, 2B InternLM2, 4B Phi3, 40B and 76B Llama with the 6B ViT; MiniCPM-Llama3-V 2.5)
trains under torchrun on two CPU ranks by its shell script, full and LoRA; what comes out is loaded, merged and asked
about a picture. Merged or not, it must answer the same, and otherwise than its base. About six minutes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from internvl_chat.inference.chat import Chat
from internvl_chat.steps import REPOSITORY, run
from quickstart.steps import cpu_ranks
from quickstart.synthetic.stills import QUESTION, write_stills
from tests.families import write_family
from tests.helpers import TILE_PX
from tests.minicpmv import write_minicpmv

MODES = ("full", "lora")
MINICPM = "minicpm_llama3_v2_5"
NAMES = ("internvl2_1b", "internvl2_2b", "internvl2_4b", "internvl2_40b", "internvl2_76b", MINICPM)
# Steps so large that three of them change what a model answers.
FLAGS = (
    f"--force_image_size {TILE_PX} --max_dynamic_patch 2 --dataloader_num_workers 0 --max_steps 3 --save_steps 3 "
    "--learning_rate 2e-2"
)


def recipe_of(name: str, mode: str) -> list[object]:
    """The shell script of a family, and what flags of it a mode takes."""
    if name == MINICPM:
        lora = "--use_llm_lora 64 --freeze_llm True --freeze_backbone True".split()
        return [REPOSITORY / "shell/t2vid/minicpm_mix_30k.sh", *(lora if mode == "lora" else ())]
    return [*REPOSITORY.glob(f"shell/internvl2.0/2nd_finetune/{name}_*_{mode}.sh")]


def write_base(folder: Path, name: str) -> None:
    """The miniature of a family."""
    if name == MINICPM:
        write_minicpmv(folder)
    else:
        write_family(folder, name)


def answer_of(model: Path, image: Path) -> str:
    """Greedy, and the same in either form of the model: in the dtype of training."""
    return Chat.open(model, max_new_tokens=12).ask(QUESTION, images=[image, image]).text


def prove(name: str, mode: str, folder: Path, meta: Path) -> dict[str, object]:
    """Train, load, merge and ask one family."""
    base, trained, merged = folder / name, folder / f"{name}-{mode}", folder / f"{name}-{mode}-merged"
    if not base.is_dir():
        write_base(base, name)
    where = {"MODEL_PATH": str(base), "META_PATH": str(meta), "OUTPUT_DIR": str(trained), "NNODES": "1"}
    trained.mkdir()
    run(
        ["sh", *recipe_of(name, mode), *FLAGS.split()],
        {**cpu_ranks(batch_size=4), **where},
        log=trained / "launch.log",
    )
    steps = [line for line in json.loads((trained / "trainer_state.json").read_text())["log_history"] if "loss" in line]
    image = meta.parent / "images" / "00000.png"
    answer = answer_of(trained, image)
    run([sys.executable, "-m", "internvl_chat", "merge", trained, merged])
    return {
        "steps": len(steps),
        "loss": round(steps[-1]["loss"], 3),
        "base_answer": answer_of(base, image),
        "answer": answer,
        "merged_alike": answer_of(merged, image) == answer,
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        meta = write_stills(folder / "stills", train=16, val=1)
        results = {f"{name} {mode}": prove(name, mode, folder, meta) for name in NAMES for mode in MODES}
    for name, result in results.items():
        sys.stdout.write(f"{name}: {result}\n")
    holds = (
        result["steps"] == 3 and result["merged_alike"] and result["answer"] != result["base_answer"]
        for result in results.values()
    )
    sys.exit(not all(holds))


if __name__ == "__main__":
    main()
