"""Training: data, the online scheme of image alignment and mutual knowledge distillation, the heart localiser, the
default bundle's recipe.
"""
