"""EDM checkpoints as teachers: the published pickles are read without executing them, and become denoisers.

Here belongs what knows EDM's files; its networks are in `networks`, its noise process in `diffusion`.
"""
