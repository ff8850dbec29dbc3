"""The page of a heart for Qt's rich text, which lays out tables but neither grids nor drawings within the text.

It has the same parts as in :mod:`mkd_core.measure.report_page`, so the same figures.
"""

from __future__ import annotations

import base64
import html
import re
import struct
from collections.abc import Callable

from mkd_core.measure.messages import RESEARCH_USE
from mkd_core.measure.report_page import ReportPage, report_facts, report_parts

#: Width of the page's contents in CSS pixels, 96 an inch: A4 without 12 mm at either side.
WIDTH = 703.0

#: Pictures are drawn so many times finer than they are shown, for print.
_FINER = 4

_PICTURE_HEIGHT = 228

#: Pictures lower than this stand in a line of text.
_IN_LINE = 20

#: Widths of the two columns and of the gap between them.
_LEFT, _GAP, _RIGHT = 350, 16, 331

_SVG = re.compile(r'<svg([^>]*?) width="(\d+)" height="(\d+)"([^>]*)>(.*?)</svg>', re.DOTALL)


def report_rich_text(page: ReportPage, translate: Callable[[str], str] = str, *, draws_svg: bool = True) -> str:
    """The page as HTML of the kind that Qt's QTextDocument knows.

    Args:
        page: what goes on it.
        translate: of the sentences of warnings, see :func:`mkd_core.measure.messages.describe`.
        draws_svg: whether Qt can draw SVG here; without it the bull's-eye, the curve and the marks of normal ranges are
            left out, and their figures stay.
    """
    parts = {name: _for_qt(part, draws_svg) for name, part in report_parts(page, translate).items()}
    facts = "".join(
        f'<td><span class="label">{_e(name)}</span><br><b>{_e(text)}</b></td>'
        for name, text in report_facts(page).items()
    )
    right = parts["wall"] + parts["function"] + parts["warnings"]
    return (
        f"<html><head><style>{_STYLE}</style></head><body>"
        '<table width="100%" cellspacing="0" cellpadding="0"><tr><td><p class="kind">WHOLE-HEART SEGMENTATION</p>'
        f'<p class="person">{_e(page.person)}</p></td><td align="right" valign="top">'
        f'<p class="stamp">{_e(RESEARCH_USE)}</p></td></tr></table><hr>'
        f'<table width="100%" cellspacing="0" cellpadding="2"><tr>{facts}</tr></table>{_pictures(page)}'
        f'<table width="100%" cellspacing="0" cellpadding="0"><tr><td width="{_LEFT}" valign="top">'
        f'{parts["structures"]}{parts["figures"]}</td><td width="{_GAP}"></td><td width="{_RIGHT}" valign="top">'
        f"{right}</td></tr></table><hr>{parts['footer']}"
        "</body></html>"
    )


def _e(text: object) -> str:
    return html.escape(str(text), quote=True)


def _for_qt(part: str, draws_svg: bool) -> str:
    part = _SVG.sub(_picture_of if draws_svg else "", part)
    part = re.sub(r'<b class="swatch" style="background:([^"]*)"></b>', r'<span style="color:\1">■</span>&nbsp;', part)
    part = re.sub(r'<div class="scale">.*?</div>', "", part)  # a row of coloured boxes; the segments have their numbers
    part = part.replace("<table>", '<table width="100%" cellspacing="0" cellpadding="1.5">')
    part = re.sub(r"<td(?=[ >])", '<td align="right" style="white-space:nowrap"', part)
    part = re.sub(r"<th(?=[ >])", '<th align="left"', part)
    part = re.sub(r"<(/?)i\b[^>]*>", r"<\1span>", part)
    part = re.sub(r'<li class="(\w+)"><span>(.)</span>', r'<p class="item"><span class="\1">\2</span> ', part)
    return part.replace("</li>", "</p>").replace("<ul>", "").replace("</ul>", "").replace("&shy;", "")


def _picture_of(found: re.Match[str]) -> str:
    """A picture within the text as one beside it, finer by as much as print needs."""
    before, width, height, after, inside = found.groups()
    finer = f'width="{int(width) * _FINER}" height="{int(height) * _FINER}"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"{before} {finer}{after}>{inside}</svg>'
    data = base64.b64encode(svg.encode("utf-8")).decode("ascii")
    image = f'<img src="data:image/svg+xml;base64,{data}" width="{width}" height="{height}">'
    return image if int(height) < _IN_LINE else f'<p align="center">{image}</p>'


def _pictures(page: ReportPage) -> str:
    if not page.pictures:
        return ""
    sizes = [struct.unpack(">II", png[16:24]) if png[12:16] == b"IHDR" else (1, 1) for png in page.pictures.values()]
    room = (WIDTH - 8 * len(sizes)) / sum(width / height for width, height in sizes)
    high = min(float(_PICTURE_HEIGHT), room)
    cells = "".join(
        f'<td><img src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}" '
        f'width="{high * width / height:.0f}" height="{high:.0f}"><br><span class="label">{_e(name)}</span></td>'
        for (name, png), (width, height) in zip(page.pictures.items(), sizes)
    )
    return f'<table cellspacing="0" cellpadding="3"><tr>{cells}</tr></table>'


_STYLE = """
body{font-size:10.5px;color:#1d2733}
p{margin:0 0 2px 0}
.kind{font-size:10px;font-weight:600;color:#52647a}
.person{font-size:20px;font-weight:600;color:#123456}
.stamp{color:#b3541e;font-weight:600;font-size:11px}
.label{font-size:9px;color:#6a7787}
h2{font-size:11.5px;color:#123456;margin:8px 0 2px 0}
th{font-weight:400}
thead td{color:#6a7787;font-size:9px}
.value{font-weight:600}
.state{color:#b3541e}
.green{color:#2e7d4f}.amber{color:#b77400}.red{color:#b3261e}.none{color:#7b8794}
.note,.note p,.legend{font-size:8.5px;color:#5c6978}
.item{margin:0 0 3px 0}
footer{font-size:8.5px;color:#5c6978}
"""
