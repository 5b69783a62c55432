"""The command `eval` under the name of the original's script: caption the test videos with a checkpoint.

python eval_const.py                                     # newest checkpoint under work_dirs/
python eval_const.py --model CKPT --out results/mine --split public
torchrun --nproc_per_node 4 eval_const.py                # the ids split over four processes
"""

from __future__ import annotations

import sys

from internvl_chat.__main__ import main as command_line
from internvl_chat.command_line import Parser
from internvl_chat.commands.eval import add_arguments
from internvl_chat.commands.eval import run as run
from internvl_chat.processes import run as run_program


def build_parser() -> Parser:
    parser = Parser(description=__doc__)
    add_arguments(parser)
    return parser


def main() -> int:
    return command_line(["eval", *sys.argv[1:]])


if __name__ == "__main__":
    run_program(main)
