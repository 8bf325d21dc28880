"""Several processes behind one port: a parent that supervises, workers that serve.

The parent owns the listening socket and decides which model is served; it loads none itself.
Each worker has a control channel to it. A reload has two phases: every worker *prepares* the
model (loads, checks, tries it) and reports; only when all have, the parent writes down the
decision and tells all to *commit*, which is one assignment and cannot fail. If one worker cannot
prepare, all drop what they prepared and serve what they served.
"""
