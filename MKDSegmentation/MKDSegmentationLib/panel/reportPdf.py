"""The report of a heart as PDF: one page, drawn by Qt."""

import os

import qt

from mkd_core.measure.report_print import WIDTH

#: Margins within what a device can print on, CSS pixels.
_MARGIN = 32.0
_CSS_DPI = 96.0

#: So many times the document is made wider and drawn smaller until it fits on one page.
_TRIES = 12


def canDrawSvg() -> bool:
    """Tell whether Qt has its plugin for SVG here."""
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg" width="2" height="2"><rect width="2" height="2"/></svg>'
    return bool(qt.QPixmap().loadFromData(drawing))


def writePdf(path: str, richText: str) -> None:
    """Write a page (see mkd_core.measure.report_print) as PDF of one page, A4.

    :raises OSError: if the file cannot be written.
    """
    device = pdfDevice(path)
    painter = qt.QPainter()
    if not painter.begin(device):
        raise OSError(0, "the PDF could not be opened", path)
    try:
        scale = device.logicalDpiX() / _CSS_DPI
        painter.scale(scale, scale)
        room = (device.width() / scale - 2 * _MARGIN, device.height() / scale - 2 * _MARGIN)
        painter.translate(_MARGIN, _MARGIN)
        _drawOnOnePage(painter, richText, *room)
    finally:
        painter.end()  # which completes the file
    if not os.path.getsize(path):
        raise OSError(0, "the PDF is empty", path)


def pdfDevice(path: str):
    """Return what to paint on: Qt's writer of PDF, or its printer where Slicer's Python does not know that."""
    if hasattr(qt, "QPdfWriter"):
        return qt.QPdfWriter(path)  # A4 unless told otherwise
    printer = qt.QPrinter(qt.QPrinter.HighResolution)
    printer.setOutputFormat(qt.QPrinter.PdfFormat)
    printer.setOutputFileName(path)
    return printer


def _drawOnOnePage(painter, richText: str, width: float, height: float) -> None:
    document = qt.QTextDocument()
    font = qt.QFont("Arial")
    font.setPixelSize(10)
    font.setHintingPreference(qt.QFont.PreferNoHinting)
    document.defaultFont = font
    document.useDesignMetrics = True  # letters stand where print needs them, not where a screen has pixels
    document.documentMargin = 0.0
    document.setHtml(richText)
    smaller = 1.0
    for _try in range(_TRIES):
        document.textWidth = WIDTH / smaller
        size = document.size
        if size.height() * smaller <= height:
            break
        smaller *= 0.94
    smaller = min(smaller, height / size.height(), width / size.width())
    painter.scale(smaller, smaller)
    document.drawContents(painter)
