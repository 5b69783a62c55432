"""What a server lets a request cost; every limit is a flag of `serve`."""

from __future__ import annotations

from dataclasses import dataclass

from internvl_chat.settings import check_settings, setting


@dataclass(frozen=True)
class ServerLimits:
    """How much is accepted: at a time, and of one request.

    Raises:
        UserError: a limit that lets nothing through.
    """

    max_requests: int = setting(128, "requests that are accepted at a time, waiting ones among them; others get 429")
    max_batch: int = setting(32, "requests that are answered together")
    max_body_mb: int = setting(64, "megabytes of a request, or of a file that it names")
    max_megapixels: int = setting(40, "megapixels of a picture, or of a video's frame")
    max_images: int = setting(64, "images in a request")
    max_shown_frames: int = setting(256, "frames shown of a video")
    max_video_seconds: int = setting(600, "seconds of a video")
    max_video_frames: int = setting(50_000, "frames of a video")
    body_seconds: int = setting(60, "seconds in which a request must have come in, and a file it names be fetched")
    request_seconds: int = setting(300, "seconds after which a request that is not answered is given up")

    def __post_init__(self) -> None:
        check_settings(self, dict.fromkeys(vars(self), 1))

    @property
    def max_body_bytes(self) -> int:
        return self.max_body_mb * 1_000_000

    @property
    def max_pixels(self) -> int:
        return self.max_megapixels * 1_000_000
