"""The command `npy` under the name of the original's script: `object_bboxes.npy` beside each video of a dataset.

python generate_npy_bboxes.py                   # roots from shell/data/intentvc_caption.json
python generate_npy_bboxes.py --root /path/to/IntentVC
"""

from __future__ import annotations

import sys

from internvl_chat.__main__ import main as command_line
from internvl_chat.processes import run


def main() -> int:
    return command_line(["npy", *sys.argv[1:]])


if __name__ == "__main__":
    run(main)
