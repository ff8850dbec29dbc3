"""What is known of a weights bundle, for someone who has to decide whether to believe its results."""

import html
import os

from slicer.i18n import tr as _

from mkd_core.structures import BY_KEY

_TEXTS = 600  # characters of a free text that fit a panel


def modelCard(description: dict, path: str) -> str:
    """Return the description of a bundle (mkd_core.io.bundle_metadata) as rich text, one fact a line."""
    facts = [
        (
            _("Made for"),
            _("{target}; knowledge of shape learned from {assistant} too").format(
                target=description["target"], assistant=description["assistant"]
            ),
        ),
        (_("Intended use"), description["intended_use"]),
        (_("Trained on"), str(description["training"].get("data") or _("not told"))),
        (_("Measured quality"), _quality(description["quality"]) or _("not told")),
        (_("Licence"), description["licence"]),
        (
            _("File"),
            _("{name}, {size} MB, made {date}").format(
                name=os.path.basename(path), size=f"{os.path.getsize(path) / 1e6:.0f}", date=description["created"]
            ),
        ),
    ]
    title = "<b>{} {}</b>".format(html.escape(description["name"]), html.escape(description["version"]))
    lines = [f"<b>{html.escape(name)}:</b> {_breakable(html.escape(_shortened(text)))}" for name, text in facts]
    return "<br>".join([title] + lines)


def _quality(quality: dict) -> str:
    """Return the mean overlaps that a bundle reports, and how many cases they come from; other figures are for the
    command line.
    """
    parts = []
    for name, figures in quality.items():
        if not isinstance(figures, dict) or not isinstance(figures.get("mean"), (int, float)):
            continue
        known = {key: value for key, value in figures.items() if key in BY_KEY and isinstance(value, (int, float))}
        if not (known or figures.get("cases")):
            continue  # a table in which "mean" stands for something else
        text = _("{data}: Dice {mean}").format(data=name, mean=f"{figures['mean']:.2f}")
        if known:
            worst = min(known, key=known.get)
            text += _(", lowest {structure} {value}").format(
                structure=BY_KEY[worst].name.lower(), value=f"{known[worst]:.2f}"
            )
        if figures.get("cases"):
            text += _(" ({cases} cases)").format(cases=figures["cases"])
        parts.append(text)
    return "; ".join(parts)


def _shortened(text: str) -> str:
    return text if len(text) <= _TEXTS else text[:_TEXTS].rsplit(" ", 1)[0] + " ..."


def _breakable(text: str) -> str:
    """Let long addresses break at their slashes; otherwise they would widen the panel."""
    return text.replace("/", "/\N{ZERO WIDTH SPACE}")
