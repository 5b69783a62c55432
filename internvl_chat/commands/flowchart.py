"""Write a detection dataset of flowchart pictures, whose truth is known.

DIR gets images/, train.jsonl and val.jsonl (InternVL's records, boxes in thousandths), train_coco.json and
val_coco.json (pixels), and a meta.json for training. Without --image_size and --grid, sizes and grids are those of the
InternVL2 guide's generator.
"""

from __future__ import annotations

import argparse

from internvl_chat.commands.options import add_json, count, folder_to_write, png_path, positive_int, save_png, tell

CLASSES = ("rec", "diamond", "ellipse", "circle", "parallel", "line")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--out",
        type=folder_to_write,
        required=True,
        help="folder for the dataset: new, or one that this command was cut off in",
    )
    add("--images", type=positive_int, default=5000, help="pictures to draw (default: %(default)s)")
    add("--val_fraction", type=float, default=0.1, help="share of them that is held out (default: %(default)s)")
    add("--seed", type=count, default=0, help="(default: %(default)s)")
    add("--classes", nargs="+", choices=CLASSES, default=CLASSES, help="a line has an arrow, its head (default: all)")
    add("--image_size", type=positive_int, help="side of square pictures, pixels (default: 600 to 1000, drawn)")
    add("--grid", type=positive_int, nargs="+", help="cells a side, drawn from these (default: 2 to 5, mostly 4)")
    add("--sheet", type=png_path, help="write a PNG of some pictures with their boxes")
    add("--sheet_images", type=positive_int, default=6, help="pictures on the sheet (default: %(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from PIL import Image

    from internvl_chat.data.media.boxed_pictures import BoxedPicture, boxed_sheet
    from internvl_chat.data.synthetic.flowchart import FlowchartStyle
    from internvl_chat.data.synthetic.flowchart_dataset import write_flowcharts

    style = FlowchartStyle(tuple(args.classes), args.image_size, tuple(args.grid) if args.grid else None)
    parts = write_flowcharts(args.out, style, images=args.images, val_fraction=args.val_fraction, seed=args.seed)
    if args.sheet:
        pages = [page for part in parts.values() for page in part][: args.sheet_images]
        pictures = [
            BoxedPicture(Image.open(args.out / page.file), page.labelled_boxes(), (), f"{page.file}, boxes in blue")
            for page in pages
        ]
        save_png(boxed_sheet(pictures), args.sheet)
    num_boxes = sum(len(page.objects) for part in parts.values() for page in part)
    counts = ", ".join(f"{len(pages)} {part}" for part, pages in parts.items())
    tell(args, f"{args.out}: {counts} images, {num_boxes} boxes", out=args.out, images=counts, boxes=num_boxes)
    return 0
