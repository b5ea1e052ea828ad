"""Reading and writing: atomic writes, text and JSON files, locks, progress bars, optional imports, the pickle reader.

Here belongs what any part of the package needs to touch the machine. It knows nothing of diffusion: no noise process,
no network, no recipe.
"""
