"""SAM2Iterative: from a folder with few labels to labels for all, round by round. The library works without a screen."""

__version__ = "0.1.0"
