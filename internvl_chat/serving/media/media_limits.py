"""Whether a picture or a video is small enough to be decoded, told before it is."""

from __future__ import annotations

from pathlib import Path

from internvl_chat.contracts import Sample, UserError
from internvl_chat.data.media.pictures import picture_size
from internvl_chat.data.media.sources import MediaHeader
from internvl_chat.serving.server_limits import ServerLimits

_HEAD_BYTES = 512
# What stands at the beginning of files that FFmpeg opens, at which byte. Playlists, which would have it open other
# files and addresses, are none of them.
_SIGNATURES = (
    (4, b"ftyp"),
    (4, b"moov"),
    (4, b"mdat"),
    (4, b"free"),
    (4, b"skip"),
    (4, b"wide"),
    (0, b"\x1a\x45\xdf\xa3"),
    (8, b"AVI "),
    (0, b"GIF87a"),
    (0, b"GIF89a"),
    (0, b"OggS"),
    (0, b"FLV\x01"),
    (0, b"\x00\x00\x01\xba"),
    (188, b"\x47"),
)


def check_picture(path: Path, limits: ServerLimits) -> None:
    """Hold a picture's header against the limits.

    Raises:
        UserError: it is no picture, or a larger one.
    """
    size_px, _ = picture_size(path)
    _check_pixels(path, size_px, limits)


def check_video(path: Path, limits: ServerLimits) -> None:
    """Hold what a video states against the limits, without decoding; a folder of frames is taken as it is.

    Raises:
        UserError: it is no video of a kind that is read, or larger or longer.
    """
    if path.is_dir():
        return
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not any(head[at : at + len(mark)] == mark for at, mark in _SIGNATURES):
        raise UserError(f"{path}: is no video: expected MP4, MOV, Matroska, WebM, AVI, MPEG, Ogg, FLV or GIF")
    if head.startswith(b"GIF"):
        # FFmpeg makes room for a GIF's whole canvas to tell its size.
        _check_pixels(path, (int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")), limits)
    size_px, seconds = _stated(path)
    _check_pixels(path, size_px, limits)
    _check_seconds(path, seconds, limits)


def check_length(sample: Sample, header: MediaHeader, limits: ServerLimits) -> None:
    """Hold the frames that a sample's video has, and the numbers that are to be shown, against the limits.

    Raises:
        UserError: there are more, or others.
    """
    if sample.video_path is None:
        return
    if header.num_pictures > limits.max_video_frames:
        raise UserError(
            f"{sample.video_path}: has {header.num_pictures} frames, expected at most {limits.max_video_frames}"
        )
    if header.frames_per_second > 0:
        _check_seconds(sample.video_path, header.timeline.duration_s, limits)
    if sample.frame_numbers and sample.frame_numbers[-1] >= header.num_pictures:
        raise UserError(
            f"{sample.video_path}: has no frame {sample.frame_numbers[-1]}: expected 0 to {header.num_pictures - 1}"
        )


def _stated(path: Path) -> tuple[tuple[int, int], float]:
    """Size of the pictures and seconds, as a video's headers have them; 0 where they say nothing."""
    import av

    from internvl_chat.data.media.decoding.presentation import open_container, video_stream

    try:
        with open_container(path) as container:
            codec = video_stream(path, container).codec_context
            return (codec.width, codec.height), (container.duration or 0) / av.time_base
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path}: is not a readable video ({error})") from error


def _check_pixels(path: Path, size_px: tuple[int, int], limits: ServerLimits) -> None:
    width_px, height_px = size_px
    if width_px * height_px > limits.max_pixels:
        raise UserError(
            f"{path}: is {width_px} x {height_px}, expected at most {limits.max_megapixels} megapixels: scale it down"
        )


def _check_seconds(path: Path, seconds: float, limits: ServerLimits) -> None:
    if seconds > limits.max_video_seconds:
        raise UserError(f"{path}: lasts {seconds:.0f} s, expected at most {limits.max_video_seconds} s: cut it")
