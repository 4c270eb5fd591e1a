"""Results as sections of words, tables and charts, declared once and drawn by four renderers.

`parts` says what there is to show; `terminal`, `markdown`, `page` (HTML with Plotly) and `figures` (Matplotlib) draw
it. What is shown is decided elsewhere: by each study, and by `experiments.report` for replays.
"""
