"""Small pictures as SVG: the bull's-eye of the wall's thickness, the curve of volumes over a beat, a normal range.

All are parts to be put into a page: they name their own size, use no fonts or files from elsewhere, and have a title
for those who cannot see them.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

from mkd_core.measure.clinical_figures import ClinicalFigure
from mkd_core.measure.wall_thickness import SEGMENT_NAMES

#: Thicknesses at the two ends of the colour scale, mm; the same for all hearts, so that pictures can be compared.
SCALE_MM = (4.0, 16.0)

#: Colours of the scale from thin to thick, sRGB: one hue, darker with thickness, readable without colour vision.
_COLOURS = ((236, 244, 251), (158, 196, 226), (66, 128, 184), (12, 52, 96))

_NO_VALUE = "#e8e8e8"

#: Colour and width of the lines between segments: dark on light, so that they are seen on thin and thick walls, on
#: white paper and on a dark panel.
_LINES = (("#fff", 2.2), ("#33414e", 0.8))
_RINGS = ((60.0, 90.0), (32.0, 60.0), (12.0, 32.0))  # inner and outer radius of basal, mid and apical segments


def bullseye_svg(segments: Mapping[int, float], size: int = 230, ink: str = "#444") -> str:
    """The 17 segments with their thickness in mm.

    Args:
        segments: thickness in mm by the segment's number, 1 to 17; missing ones are left grey.
        size: width and height in pixels.
        ink: colour of the captions around them, as CSS writes it; it must be seen on what lies behind the picture.
    """
    parts = [_wedge(number, segments.get(number)) for number in range(1, 17)]
    parts.append(_apex(segments.get(17)))
    parts += [f'<g fill="none" stroke="{colour}" stroke-width="{width}">{_BORDERS}</g>' for colour, width in _LINES]
    for text, x, y in (("Anterior", 0, -97), ("Inferior", 0, 104), ("Septal", -99, 2), ("Lateral", 99, 2)):
        turn = "" if x == 0 else f' transform="rotate({-90 if x < 0 else 90} {x} 0)"'
        parts.append(f'<text x="{x}" y="{y if x == 0 else 3}" class="side"{turn}>{text}</text>')
    return (
        f'<svg class="bullseye" viewBox="-112 -112 224 224" width="{size}" height="{size}" role="img">'
        "<title>Wall thickness in mm in the 17 segments of the American Heart Association</title>"
        "<style>.bullseye text{font:8.5px sans-serif;text-anchor:middle;dominant-baseline:central}"
        f".bullseye .side{{font-size:8px;fill:{ink}}}</style>" + "".join(parts) + "</svg>"
    )


def colour_of(millimetres: float) -> tuple[int, int, int]:
    """Colour of a thickness, sRGB 0 to 255."""
    low, high = SCALE_MM
    at = min(max((millimetres - low) / (high - low), 0.0), 1.0) * (len(_COLOURS) - 1)
    first = min(int(at), len(_COLOURS) - 2)
    share = at - first
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(_COLOURS[first], _COLOURS[first + 1]))
    return red, green, blue


def _fill(value: float | None) -> tuple[str, str]:
    """Colour of a segment, and of the text on it."""
    if value is None:
        return _NO_VALUE, "#555"
    red, green, blue = colour_of(value)
    is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 118
    return f"rgb({red},{green},{blue})", "#fff" if is_dark else "#123"


def _wedge(number: int, value: float | None) -> str:
    ring = 0 if number <= 6 else 1 if number <= 12 else 2
    inner, outer = _RINGS[ring]
    # Segment 1 (7, 13) is at the top; the next follow counter-clockwise: the septum is on the left, as in short axes.
    width = 90.0 if ring == 2 else 60.0
    middle = 90.0 + width * (number - (1, 7, 13)[ring])
    start, end = middle - width / 2, middle + width / 2
    corners = [_point(outer, start), _point(outer, end), _point(inner, end), _point(inner, start)]
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = corners
    fill, ink = _fill(value)
    x, y = _point((inner + outer) / 2, middle)
    path = f"M{ax} {ay}A{outer} {outer} 0 0 0 {bx} {by}L{cx} {cy}A{inner} {inner} 0 0 1 {dx} {dy}Z"
    return _segment(f'<path d="{path}" fill="{fill}">', "path", number, value, ink, x, y)


def _apex(value: float | None) -> str:
    fill, ink = _fill(value)
    return _segment(f'<circle r="12" fill="{fill}">', "circle", 17, value, ink, 0, 0)


def _segment(shape: str, tag: str, number: int, value: float | None, ink: str, x: float, y: float) -> str:
    shown = "not measured" if value is None else f"{value:.1f} mm"
    text = "–" if value is None else f"{value:.0f}" if number > 12 else f"{value:.1f}"
    return (
        f"{shape}<title>{number}: {SEGMENT_NAMES[number]}, {shown}</title></{tag}>"
        f'<text x="{x}" y="{y}" fill="{ink}">{text}</text>'
    )


def _point(radius: float, degrees: float) -> tuple[float, float]:
    angle = math.radians(degrees)
    return round(radius * math.cos(angle), 2), round(-radius * math.sin(angle), 2)


def _borders() -> str:
    """Rings and rays between the segments, as shapes without a colour."""
    rays = [(60.0 * n, 32.0, 90.0) for n in range(6)] + [(45.0 + 90.0 * n, 12.0, 32.0) for n in range(4)]
    ends = [(_point(inner, degrees), _point(outer, degrees)) for degrees, inner, outer in rays]
    path = "".join(f"M{ax} {ay}L{bx} {by}" for (ax, ay), (bx, by) in ends)
    return "".join(f'<circle r="{radius}"/>' for radius in (90, 60, 32, 12)) + f'<path d="{path}"/>'


_BORDERS = _borders()


def range_svg(figure: ClinicalFigure, width: int = 92) -> str:
    """A figure in its normal range: the band is what is normal, the mark is the figure; "" without a range."""
    reference, value = figure.reference, figure.value
    if reference is None or value is None:
        return ""
    top = (reference.high if reference.high is not None else value) * 1.5
    low = 0.0 if reference.low is None else reference.low
    high = top if reference.high is None else reference.high
    span = max(top, 1e-6)
    mark = min(max(value / span, 0.01), 0.99) * width
    first, long = low / span * width, (high - low) / span * width
    colour = "#2e7d4f" if figure.verdict == "normal" else "#b3541e"
    return (
        f'<svg viewBox="0 0 {width} 12" width="{width}" height="12" role="img"><title>{html.escape(figure.text)}, '
        f"normal {html.escape(reference.text(figure.digits))}</title>"
        f'<rect y="4" width="{width}" height="4" rx="2" fill="#e7e9ec"/>'
        f'<rect x="{first:.1f}" y="4" width="{long:.1f}" height="4" fill="#b9d8c6"/>'
        f'<circle cx="{mark:.1f}" cy="6" r="4.2" fill="{colour}" stroke="#fff" stroke-width="1.2"/></svg>'
    )


def curve_svg(
    curves: Mapping[str, Sequence[float | None]], colours: Mapping[str, str], width: int = 330, height: int = 130
) -> str:
    """Volumes in ml over the frames of a beat.

    Args:
        curves: by name, one value a frame, None where there is none.
        colours: of each curve, as CSS writes them.
        width, height: in pixels.
    """
    values = [value for curve in curves.values() for value in curve if value is not None]
    if not values:
        return ""
    step = 10.0 ** math.floor(math.log10(max(values)))
    step = next(one for one in (step / 5, step / 2, step, 2 * step) if max(values) / one <= 5)
    top = step * math.ceil(max(values) / step)
    count = max(len(curve) for curve in curves.values())
    left, bottom, right, above = 34, 20, 8, 10

    def place(frame: int, value: float) -> str:
        x = left + (width - left - right) * frame / max(count - 1, 1)
        return f"{x:.1f},{height - bottom - (height - bottom - above) * value / top:.1f}"

    parts = []
    for n in range(round(top / step) + 1):
        y = float(place(0, n * step).split(",")[1])
        parts.append(f'<path d="M{left} {y}H{width - right}" stroke="#e4e6e9"/>')
        parts.append(f'<text x="{left - 5}" y="{y}" text-anchor="end" dominant-baseline="central">{n * step:g}</text>')
    for number, (name, curve) in enumerate(curves.items()):
        points = [place(frame, value) for frame, value in enumerate(curve) if value is not None]
        colour = html.escape(colours.get(name, "#345"), quote=True)
        dash = ' stroke-dasharray="5 3"' if number % 2 else ""
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts += [f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="2.2" fill="{colour}"/>' for p in points]
        parts.append(
            f'<text x="{left + 8 + 90 * number}" y="{above - 2}" style="fill:{colour};font-weight:bold">'
            f"{html.escape(name)}</text>"
        )
    for frame in range(0, count, max(1, math.ceil(count / 10))):
        x = place(frame, 0.0).split(",")[0]
        parts.append(f'<text x="{x}" y="{height - 8}" text-anchor="middle">{frame + 1}</text>')
    return (
        f'<svg class="curve" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        "<title>Volume in ml in each frame</title><style>.curve text{font:8px sans-serif;fill:#667}</style>"
        + "".join(parts)
        + "</svg>"
    )
