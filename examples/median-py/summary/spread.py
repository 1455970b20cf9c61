"""How far apart the numbers of a list are."""


def quantile(numbers, share):
    """Return the number below which `share` of the numbers lie, interpolating between neighbours."""
    if not numbers:
        raise ValueError("the quantile of nothing is not defined")
    if not 0 <= share <= 1:
        raise ValueError("a share lies between 0 and 1")
    ordered = sorted(numbers)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def spread(numbers):
    """Return the distance between the first and the third quartile."""
    return quantile(numbers, 0.75) - quantile(numbers, 0.25)


def histogram(numbers, n_bins=10):
    """Return the number of values in each of `n_bins` equal bins from the smallest to the largest value."""
    low, high = min(numbers), max(numbers)
    width = (high - low) / n_bins or 1
    bins = [0] * n_bins
    for number in numbers:
        index = min(int((number - low) / width), n_bins - 1)
        bins[index] += 1
    return bins
