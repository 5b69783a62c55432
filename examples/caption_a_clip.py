"""Caption one object of a clip.

python examples/caption_a_clip.py MODEL CLIP TRACK [NAME]
"""

from __future__ import annotations

import sys

from internvl_chat import Captioner

if len(sys.argv) not in (4, 5):
    sys.exit(__doc__)
model_path, clip, track, *rest = sys.argv[1:]
model = Captioner.open(model_path)
print(model.caption(clip, track, name=rest[0] if rest else None))
