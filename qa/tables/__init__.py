"""A paper's table from one YAML: what has to be run for it, what was run, and how it is printed."""
