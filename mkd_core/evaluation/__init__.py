"""How good a weights bundle is on labelled volumes, by the measures that papers on whole-heart segmentation print."""
