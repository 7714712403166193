"""Tells the day of the week of any date."""

import datetime


def weekday(date: str) -> str:
    """The English name of the day of the week of a date such as 1969-07-20."""
    return datetime.date.fromisoformat(date).strftime("%A")
