"""Summaries of a list of numbers."""

from .averages import mean, median, mode
from .spread import histogram, quantile, spread

__all__ = ["histogram", "mean", "median", "mode", "quantile", "spread"]
