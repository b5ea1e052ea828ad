"""Comparisons: one teacher through several methods at equal cost, their budgets, rows, table and page.

Here belongs what needs more than one run. Each entry is an ordinary run; the stages of one run are in `run`.
"""
