"""The middle of a list of numbers, in three senses."""

from collections import Counter


def mean(numbers):
    """Return the arithmetic mean of the numbers."""
    if not numbers:
        raise ValueError("the mean of nothing is not defined")
    return sum(numbers) / len(numbers)


def median(numbers):
    """Return the middle number, or the mean of the two middle ones if there is an even number of them."""
    if not numbers:
        raise ValueError("the median of nothing is not defined")
    ordered = sorted(numbers)
    middle = len(ordered) // 2
    if len(ordered) % 2 == 1:
        return ordered[middle]
    return (ordered[middle] + ordered[middle + 1]) / 2


def mode(numbers):
    """Return the most frequent number; of several, the smallest."""
    if not numbers:
        raise ValueError("the mode of nothing is not defined")
    counts = Counter(numbers)
    best = max(counts.values())
    return min(number for number, count in counts.items() if count == best)
