"""From a workload to a deployment before paying for it: memory, roofline, capacity, cost, choice.

Pure: model files and hardware entries are handed in as texts. The figures are a model of the
machine, not a measurement; `penstock simulate` runs the production scheduler on the same costs.
"""
