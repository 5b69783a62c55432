"""Ask a model about images or a video: one question, or a conversation.

With --question or --prompt_form one answer is written and the command ends; without, questions are read line by line
from the terminal, and

    /image PATH   shows an image with the next question
    /video PATH   starts over with a video
    /reset        starts over, with the pictures of the command line
    /quit         ends

Boxes in an answer are listed in thousandths of the picture's sides; with --boxes_out they are drawn, together with the
box or track that was given.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_chat.choices import PROMPT_FORMS
from internvl_chat.commands.options import add_json, add_model_options, add_video_backend, png_path, save_png, tell

if TYPE_CHECKING:
    from internvl_chat.contracts import Track
    from internvl_chat.inference.chat import Chat


def _box(text: str) -> tuple[float, ...]:
    """An argparse type: x1,y1,x2,y2; `track_of_box` judges whether they can be such."""
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        values = ()
    if len(values) != 4:
        raise argparse.ArgumentTypeError(f"{text}: expected four numbers x1,y1,x2,y2")
    return values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_options(parser)
    add = parser.add_argument
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--image", type=Path, nargs="+", default=[], help="images shown with the first question")
    shown.add_argument("--video", type=Path, help="video, or folder of frames, shown with the first question")
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--question", help="ask this and end")
    asked.add_argument("--prompt_form", choices=PROMPT_FORMS, help="ask IntentVCNet's question about --object and end")
    pointed = parser.add_mutually_exclusive_group()
    pointed.add_argument("--box", type=_box, help="x1,y1,x2,y2 of an object, the same in every picture")
    pointed.add_argument(
        "--tracks", type=Path, help="its track: object_bboxes.npy or .txt, or a record's 'tracks' as JSON"
    )
    add(
        "--box_unit",
        choices=("thousandths", "pixels"),
        help="of --box (default: thousandths of the picture's sides, with a note of what that is in pixels)",
    )
    add_video_backend(parser)
    add("--object", help="what the prompt calls it (default: object); of several in --tracks, the one that is meant")
    add("--boxes_out", type=png_path, help="write a PNG of the pictures with the boxes of the latest answer")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from internvl_chat.contracts import UserError
    from internvl_chat.files import lookalike

    question = args.question
    if (args.box or args.tracks) and not (args.image or args.video):
        raise UserError("--box and --tracks need a picture to lie in: give --image or --video")
    if args.boxes_out and question and not (args.image or args.video):
        raise UserError("--boxes_out needs pictures to draw into: give --image or --video")
    if args.prompt_form not in (None, "text_only") and not (args.box or args.tracks):
        raise UserError(
            f"--prompt_form {args.prompt_form} asks about an object: give --box x1,y1,x2,y2 or --tracks FILE"
        )
    if args.json and not (question or args.prompt_form):
        raise UserError("--json prints one answer: give --question or --prompt_form")
    for path in [*args.image, args.video, args.tracks]:
        if path is not None and not path.exists():
            raise UserError(f"{path}: not found{lookalike(path)}")
    tracks = _tracks(args)
    _check_shown(args, tracks)
    if args.prompt_form and len(tracks) > 1:
        names = ", ".join(repr(track.name) for track in tracks)
        raise UserError(
            f"{args.tracks}: holds {len(tracks)} objects, {names}: say with --object which one is asked about"
        )

    from internvl_chat.api import Captioner
    from internvl_chat.data.prompts.wordings import wording_named
    from internvl_chat.data.records.names import DEFAULT_NAME
    from internvl_chat.inference.handle import ModelHandle
    from internvl_chat.inference.ranks import Ranks

    opened = ModelHandle.from_arguments(args, Ranks(precision=args.dtype))
    captioner = Captioner(opened, num_frames=args.num_frames)
    chat = captioner.chat(max_new_tokens=args.max_new_tokens, temperature=args.temperature)
    talk = _Talk(chat, args, tracks)
    if args.prompt_form:
        question = wording_named(args.prompt_form).asks(tracks[0].name if tracks else DEFAULT_NAME)
    if question:
        talk.ask(question)
        return 0
    return talk.listen()


def _check_shown(args: argparse.Namespace, tracks: tuple[Track, ...]) -> None:
    """Hold what was given against the pictures, before weights are read."""
    from internvl_chat.constants import BOX_SCALE
    from internvl_chat.contracts import Sample
    from internvl_chat.data.media.sources import check_kind, read_media_header
    from internvl_chat.data.records.given.given_boxes import check_given_boxes

    for path in args.image:
        check_kind(path, "image")
    if args.video:
        check_kind(args.video, "video")
    shown = Sample("", (), "", tuple(args.image), args.video, tracks=tracks)
    header = read_media_header(shown)
    check_given_boxes(shown)
    if args.box and args.box_unit is None:
        x1, y1, x2, y2 = (
            f"{side / BOX_SCALE * full:.0f}" for side, full in zip(args.box, header.sizes_px[0] * 2, strict=True)
        )
        sys.stderr.write(
            f"note: --box is read in thousandths of the picture's sides: {x1},{y1},{x2},{y2} in pixels; if it is in "
            "pixels already, say --box_unit pixels\n"
        )


def _tracks(args: argparse.Namespace) -> tuple[Track, ...]:
    from internvl_chat.data.records.given.given_boxes import track_of_box
    from internvl_chat.data.records.given.track_files import tracks_of_file
    from internvl_chat.data.records.names import DEFAULT_NAME

    if args.box:
        return (track_of_box(args.box, args.object or DEFAULT_NAME, args.box_unit or "thousandths"),)
    return tracks_of_file(args.tracks, args.object) if args.tracks else ()


class _Talk:
    """A chat on the terminal; `images`, `video` and `tracks` wait for the next question."""

    def __init__(self, chat: Chat, args: argparse.Namespace, tracks: tuple[Track, ...]) -> None:
        self.chat, self.args, self.given_tracks = chat, args, tracks
        self.reset()

    def reset(self) -> None:
        self.chat.reset()
        self.images, self.video, self.tracks = list(self.args.image), self.args.video, self.given_tracks

    def ask(self, question: str) -> None:
        """Write the answer as it comes, then its boxes.

        Raises:
            UserError: the question cannot be asked.
        """

        def show(text: str) -> None:
            if not self.args.json:
                sys.stdout.write(text)
                sys.stdout.flush()

        images, video, tracks = self.images, self.video, self.tracks
        # Whatever comes of it: a file that cannot be used must not stand in the way of the next question.
        self.images, self.video, self.tracks = [], None, ()
        answer = self.chat.ask(question, images=images, video=video, tracks=tracks, on_text=show)
        said = ["", *(f"{item.label}: {', '.join(f'{v:g}' for v in item.box)}" for item in answer.boxes)]
        if self.args.boxes_out and len(answer.plan.frame_indices):
            save_png(self.chat.draw(answer), self.args.boxes_out)
            said.append(f"boxes: {self.args.boxes_out}")
        boxes = [{"label": item.label, "box": list(map(float, item.box))} for item in answer.boxes]
        tell(self.args, "\n".join(said), answer=answer.text, boxes=boxes)

    def listen(self) -> int:
        """Questions from the terminal until its end; what cannot be asked is told, and changes nothing."""
        from internvl_chat.contracts import UserError

        while True:
            try:
                line = input("> ").strip()
            except (EOFError, KeyboardInterrupt):
                sys.stdout.write("\n")
                return 0
            if line == "/quit":
                return 0
            try:
                self._obey(line)
            except UserError as error:
                sys.stderr.write(f"error: {error}\n")
            except KeyboardInterrupt:
                sys.stdout.write("\n")

    def _obey(self, line: str) -> None:
        from internvl_chat.contracts import UserError

        try:
            line.encode()
        except UnicodeEncodeError as error:
            raise UserError("this line is not UTF-8 text") from error
        word, _, rest = line.partition(" ")
        if word in ("/image", "/video"):
            path = Path(rest.strip())
            if not path.exists() or not rest.strip():
                raise UserError(f"{line}: not found: expected {word} PATH")
            if word == "/image":
                self.images.append(path)
            else:
                self.chat.reset()
                self.images, self.video, self.tracks = [], path, ()
        elif line == "/reset":
            self.reset()
        elif line.startswith("/"):
            raise UserError(f"{word}: expected /image PATH, /video PATH, /reset or /quit")
        elif line:
            self.ask(line)
