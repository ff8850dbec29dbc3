"""Marks of the trust lights; they differ in shape too, for those who do not see the colours."""

#: Mark of each light and its colour.
LIGHTS = {
    "green": ("\N{BLACK CIRCLE}", (46, 125, 79)),
    "amber": ("\N{BLACK UP-POINTING TRIANGLE}", (183, 116, 0)),
    "red": ("\N{BLACK SQUARE}", (214, 64, 48)),
    "none": ("", (123, 135, 148)),
}
