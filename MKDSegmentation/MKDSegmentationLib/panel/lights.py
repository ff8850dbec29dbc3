"""Marks of the trust lights with their colours."""

from mkd_core.measure.trust import MARKS

#: Mark of each light and its colour.
LIGHTS = {
    "green": (MARKS["green"], (46, 125, 79)),
    "amber": (MARKS["amber"], (183, 116, 0)),
    "red": (MARKS["red"], (214, 64, 48)),
    "none": ("", (123, 135, 148)),
}
