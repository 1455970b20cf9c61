import unittest

from summary import mean, median, mode


class Mean(unittest.TestCase):
    def test_of_several_numbers(self):
        self.assertEqual(mean([1, 2, 6]), 3)

    def test_of_nothing_is_an_error(self):
        with self.assertRaises(ValueError):
            mean([])


class Median(unittest.TestCase):
    def test_of_an_odd_number_of_values_is_the_middle_one(self):
        self.assertEqual(median([7, 1, 3]), 3)

    def test_of_an_even_number_of_values_is_between_the_two_middle_ones(self):
        self.assertEqual(median([1, 2, 4, 9]), 3)

    def test_of_one_value_is_the_value(self):
        self.assertEqual(median([5]), 5)

    def test_does_not_reorder_its_argument(self):
        numbers = [3, 1, 2]
        median(numbers)
        self.assertEqual(numbers, [3, 1, 2])


class Mode(unittest.TestCase):
    def test_is_the_most_frequent(self):
        self.assertEqual(mode([1, 2, 2, 3]), 2)

    def test_of_several_is_the_smallest(self):
        self.assertEqual(mode([3, 3, 1, 1, 2]), 1)


if __name__ == "__main__":
    unittest.main()
