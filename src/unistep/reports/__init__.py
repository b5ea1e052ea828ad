"""Reports: tables, figures, image grids, and the page that shows a run."""

from unistep.reports.compared import print_comparison as print_comparison
from unistep.reports.compared_page import write_comparison as write_comparison
from unistep.reports.figures import draw_panel as draw_panel
from unistep.reports.figures import draw_points as draw_points
from unistep.reports.figures import render as render
from unistep.reports.grids import grid_png as grid_png
from unistep.reports.grids import image_grid as image_grid
from unistep.reports.html import write_report as write_report
from unistep.reports.samples import write_samples as write_samples
from unistep.reports.table import print_table as print_table
from unistep.reports.table import to_html as to_html
from unistep.reports.table import to_markdown as to_markdown
