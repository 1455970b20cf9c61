import unittest

from summary import histogram, quantile, spread


class Quantile(unittest.TestCase):
    def test_ends_are_the_smallest_and_the_largest(self):
        self.assertEqual(quantile([4, 1, 3], 0), 1)
        self.assertEqual(quantile([4, 1, 3], 1), 4)

    def test_interpolates(self):
        self.assertAlmostEqual(quantile([1, 2, 3, 4], 0.5), 2.5)

    def test_share_outside_of_0_to_1_is_an_error(self):
        with self.assertRaises(ValueError):
            quantile([1], 1.5)


class Spread(unittest.TestCase):
    def test_is_the_distance_of_the_quartiles(self):
        self.assertAlmostEqual(spread([1, 2, 3, 4, 5]), 2)


class Histogram(unittest.TestCase):
    def test_counts_every_value_once(self):
        self.assertEqual(histogram([0, 1, 2, 3], n_bins=2), [2, 2])

    def test_of_equal_values_is_one_bin(self):
        self.assertEqual(sum(histogram([5, 5, 5])), 3)


if __name__ == "__main__":
    unittest.main()
