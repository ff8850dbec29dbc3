"""Synthetic hearts: an anatomy of our own and its appearance in CT and MR, with the truth known in every voxel.

`tissues` names what a voxel is made of, `anatomy` builds a heart from formulas, `body` puts a thorax around it,
`appearance` and `render` turn tissues into images.  Tests, the demo and training use it; segmentation does not need it.
"""

from __future__ import annotations


def __getattr__(name: str):
    """Resolve `synthesize` at first use, so that the tables can be read without loading the renderer."""
    if name == "synthesize":
        from mkd_core.synthesis.render import synthesize

        return synthesize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
