"""The mathematics of diffusion: noise processes, samplers, prediction types, guidance and loss weighting.

Here belongs what can be written with x_t, t and mu alone, in the paper's symbols. It holds no networks, files, logging
or ranks; the folders that use it do.
"""
