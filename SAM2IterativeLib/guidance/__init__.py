"""From the network's probabilities to prompts, and from SAM2's answer to pseudo-labels: arrays in, small dataclasses out.

The method's ideas can be read here, one step a file: ``uncertainty`` (b), ``key_frames`` (c, d), ``prompts`` (e),
``pseudo_label`` (h), ``convergence`` (j). Nothing here opens a file or knows a model.

Classes are counted 0..C with 0 the background; arrays are k-j-i (slice, row, column).
"""
