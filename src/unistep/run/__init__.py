"""The stages of one run, in their order: folder, teacher, pairs, training, evaluation, samples, export.

Here belongs what joins a recipe, a folder and a device. The mathematics, networks and metrics that a stage uses are in
the folders before it, and know nothing of recipes.
"""
