import unittest

from almanac import weekday


class WeekdayTest(unittest.TestCase):
    def test_known_days(self):
        self.assertEqual(weekday("1969-07-20"), "Sunday")
        self.assertEqual(weekday("2000-02-29"), "Tuesday")

    def test_no_such_day(self):
        with self.assertRaises(ValueError):
            weekday("2001-02-29")
