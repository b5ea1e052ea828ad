"""Metrics, a file each: what is computed from the features of samples and of real images.

Here belongs a figure and its definition; which figures an evaluation has is decided by `evaluation.measure`.
"""
