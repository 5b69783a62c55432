"""Run under torchrun: the runs of a list one after the other, each merged where the next one begins from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from internvl_chat import processes

processes.start()

from torch import distributed

from internvl_chat.__main__ import main as command_line
from internvl_chat.train.finetune_w_bboxes_ml import init_cpu_ranks, parse_arguments, train


def main(runs: Path) -> None:
    init_cpu_ranks()
    for flags, trained, merged in json.loads(runs.read_text()):
        train(parse_arguments(flags))
        distributed.barrier()
        if merged and distributed.get_rank() == 0:
            assert command_line(["merge", trained, merged]) == 0
        distributed.barrier()
    distributed.destroy_process_group()


processes.run(lambda: main(Path(sys.argv[1])))
