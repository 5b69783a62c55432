"""Where an object is in the pictures that are shown: a track, from a file or from the record, at frame numbers.

Shape letters: F pictures shown, K rows of a track.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from internvl_chat.boxes import BoxArray, is_absent, load_boxes, thousandths_from_fractions
from internvl_chat.contracts import Sample, Track, TrackFile, TrackRows, UserError
from internvl_chat.data.media.sources import MediaHeader, read_media_header

# A box given for a second holds for the frames that are nearer to it than to the seconds beside it.
SECONDS_REACH_S = 0.5

# A corner this many picture sides beyond the picture is no tracker's slip: the unit is another one.
CORNER_MARGIN = 1.0


def boxes_at(track: Track, indices: npt.NDArray[np.integer], header: MediaHeader, source: str) -> BoxArray:
    """The boxes of a track at pictures of the video or images that `header` describes.

    A row stands for its frame, or for all of them. A row by second stands for the frames within half a second of it,
    the nearest row first. Frames without a row have no box; between key frames it is interpolated.

    Args:
        indices: [F] frame or image numbers.
        source: where the sample stands, for messages.
    Returns:
        [F, 4] int64 x1 y1 x2 y2 in thousandths, zeros where the object is absent.
    Raises:
        UserError: the track and the video or images disagree, or it is not in the unit that it says.
    """
    if isinstance(track, TrackFile):
        boxes = load_boxes(track.path)
        if len(boxes) != header.num_pictures:
            raise UserError(
                f"{track.path}: has {len(boxes)} boxes for the {header.num_pictures} frames of its video; "
                "expected one a frame: repair object_bboxes.txt and run generate_npy_bboxes.py --overwrite"
            )
        return boxes[indices]
    source = f"{source}: track {track.name!r}"
    _check_extent(track, header, source)
    rows = _row_numbers(track, indices, header, source)
    corners = track.corners[rows]
    if track.interpolates:
        wanted = _positions_of(track, indices, header)
        corners = np.stack([np.interp(wanted, track.positions, side) for side in track.corners.T], axis=1)
        rows[(wanted >= track.positions[0]) & (wanted <= track.positions[-1])] = 0
    corners = shown_fractions(track, corners, indices, header, source)
    # Numbers that have no area are how many trackers say "absent", wherever they lie.
    far = np.any((corners < -CORNER_MARGIN) | (corners > 1 + CORNER_MARGIN), axis=1) & ~is_absent(corners) & (rows >= 0)
    if far.any():
        first = int(np.flatnonzero(far)[0])
        box = track.corners[rows[first]].tolist()
        raise UserError(
            f"{source}: the box {box} of picture {int(indices[first])} lies far outside it: "
            "are 'unit' and 'order' right?"
        )
    boxes = thousandths_from_fractions(corners)
    boxes[(rows < 0) | np.isin(indices, list(track.absent))] = 0
    return boxes


def every_box_of(sample: Sample, track: Track) -> BoxArray:
    """The boxes of a track [T, 4] at every picture of its sample, int64 thousandths, zeros where there is none.

    Raises:
        UserError: as `boxes_at`, or the pictures cannot be read.
    """
    if isinstance(track, TrackFile):
        return load_boxes(track.path)
    header = read_media_header(sample)
    return boxes_at(track, np.arange(header.num_pictures), header, sample.source)


def _check_extent(track: TrackRows, header: MediaHeader, source: str) -> None:
    num_pictures = header.num_pictures
    if track.is_complete and len(track.positions) != num_pictures:
        raise UserError(f"{source}: has {len(track.positions)} boxes for {num_pictures} pictures, expected one each")
    last = max(track.absent, default=0)
    if track.by == "second" and header.frames_per_second > 0:
        last_s, end_s = float(track.positions[-1]), header.timeline.duration_s
        if last_s > end_s + SECONDS_REACH_S:
            raise UserError(f"{source}: names second {last_s:g} of a video that lasts {end_s:.2f} s")
    if track.by == "frame":
        last = max(last, int(track.positions[-1]))
    if last >= num_pictures:
        raise UserError(f"{source}: names frame {last} of {num_pictures}, expected 0 to {num_pictures - 1}")


def _row_numbers(
    track: TrackRows, indices: npt.NDArray[np.integer], header: MediaHeader, source: str
) -> npt.NDArray[np.int64]:
    """The row [F] of each picture, -1 where it has none."""
    if track.by == "always":
        return np.zeros(len(indices), dtype=np.int64)
    if track.by == "second" and header.frames_per_second <= 0:
        raise UserError(f"{source}: is given by second, but the video states no rate: give it by frame")
    wanted, reach = _positions_of(track, indices, header), SECONDS_REACH_S if track.by == "second" else 0.0
    nearest, distances = nearest_of(track.positions, wanted)
    return np.where(distances <= reach, nearest, -1)


def nearest_of(
    places: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The number [F] of the place, of ascending ones [K], that is nearest to each wanted one [F], and how far it is."""
    after = np.searchsorted(places, wanted).clip(0, len(places) - 1)
    before = (after - 1).clip(0)
    distances = np.abs(places[np.stack([before, after])] - wanted)
    return np.where(distances[0] <= distances[1], before, after), distances.min(axis=0)


def _positions_of(track: TrackRows, indices: npt.NDArray[np.integer], header: MediaHeader) -> npt.NDArray[np.float64]:
    """These pictures [F] in the unit of the track's positions."""
    return header.timeline.seconds_of(indices) if track.by == "second" else indices.astype(np.float64)


def shown_fractions(
    track: TrackRows,
    corners: npt.NDArray[np.float64],
    indices: npt.NDArray[np.integer],
    header: MediaHeader,
    source: str,
) -> npt.NDArray[np.float64]:
    """Corners [F, 4] of a track at pictures of these numbers [F] as fractions of the pictures as they are shown.

    Raises:
        UserError: they were counted in pictures of another size.
    """
    if track.in_pixels:
        corners = corners / np.tile(_sizes_px(track, indices, header, source), 2)
    if not track.in_stored or not header.displays:
        return corners
    pairs = zip(corners, indices.tolist(), strict=True)
    return np.concatenate([header.display_at(index).shown_boxes(box[None]) for box, index in pairs])


def _sizes_px(
    track: TrackRows, indices: npt.NDArray[np.integer], header: MediaHeader, source: str
) -> npt.NDArray[np.int64]:
    """Width and height [F, 2] that pixels are counted in: of the shown pictures, or of the stored ones."""
    shown = header.sizes_at(indices)
    stored = np.array([header.display_at(i).stored_size(*size) for i, size in zip(indices, shown, strict=True)])
    sizes = stored if track.in_stored else shown
    if track.size_px is None or not np.any(sizes != track.size_px):
        return sizes
    # Pixels that are not square, in a picture that is not turned: its size says which ones were counted.
    if not any(header.display_at(i).turns for i in indices) and not np.any(stored != track.size_px):
        return stored
    at = int(np.flatnonzero(np.any(sizes != track.size_px, axis=1))[0])
    width_px, height_px = sizes[at].tolist()
    message = (
        f"{source}: 'width' and 'height' say {track.size_px[0]} x {track.size_px[1]}, the file is "
        f"{width_px} x {height_px}: boxes in pixels belong to one of them"
    )
    if tuple(stored[at].tolist()) == track.size_px:
        message += (
            "; that is its size before a player turns it: say 'counted_in': 'stored' in the track if the boxes were "
            "counted so, else give the size that is shown"
        )
    raise UserError(message)
