"""Does the caption follow the box? One clip with the object's own box, with none, and with another object's.

python examples/follow_the_box.py MODEL CLIP TRACK OTHER_TRACK PICTURE.png
"""

from __future__ import annotations

import sys

from internvl_chat import Captioner

if len(sys.argv) != 6:
    sys.exit(__doc__)
model_path, clip, track, other_track, picture = sys.argv[1:]
model = Captioner.open(model_path)
result = model.follow_the_box(clip, track, other_track)
print(result)
print(f"no box changes the caption: {result.changes_without}, the other's box: {result.changes_with_other}")
model.draw(result.own).save(picture)
