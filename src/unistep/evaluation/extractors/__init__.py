"""Feature extractors: the networks that map images to the features in which samples are compared.

Here belongs a network, its file and its training; what is computed from features is in `metrics`.
"""
