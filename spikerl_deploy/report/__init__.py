"""The report: report.json (`spikerl.report/2`), what it is merged from, what is checked in it, and its page and plots.

docs/report.md has the layout, data/report.schema.json the schema. Loads neither torch nor matplotlib.
"""
