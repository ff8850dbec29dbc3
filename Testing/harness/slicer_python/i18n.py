"""Stand-in for slicer.i18n: marks text for translation; nothing is translated, but misuse is refused."""


def translate(context, text):
    """Return `text`; both arguments must be str."""
    if not isinstance(context, str) or not isinstance(text, str):
        raise TypeError(f"translate() takes two strings, not {context!r} and {text!r}")
    return text


def tr(text):
    """Return `text`, which must be str."""
    return translate("", text)
