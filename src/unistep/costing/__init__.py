"""What a step costs: network evaluations, seconds and memory, measured once on real steps, for plans and comparisons.

Here belongs what runs a few steps to measure them. What a plan or a comparison makes of the numbers is in `planning`
and `comparison`.
"""
