"""The almanac as a web service."""

import os

from flask import Flask, abort

from . import weekday

app = Flask(__name__)


@app.get("/weekday/<date>")
def show(date: str):
    try:
        return {"date": date, "weekday": weekday(date)}
    except ValueError:
        abort(404)


def main():
    app.run(host=os.environ.get("HOST", "0.0.0.0"), port=int(os.environ.get("PORT", "5000")))
