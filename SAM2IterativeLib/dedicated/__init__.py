"""The dedicated network: a U-Net planned for the data, trained on few labels and on weighted pseudo-labels.

The way through: ``fingerprint`` (what the data are) → ``planning`` (rules) → ``plan`` (decisions, a file a person may edit) →
``cases`` (arrays on the plan's grid) → ``sampling`` and ``augmentation`` (batches) → ``training`` → ``weights`` (files) →
``prediction`` (probabilities on the original grid).

Classes are counted 0..C with 0 the background; arrays are k-j-i (slice, row, column), tensors (batch, channel, k, j, i), without
k for a 2-D network.
"""
