"""The browser of the tests, and what they lack without it."""

import importlib.util
import shutil

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def lacks(*packages):
    """Say what is missing for tests in a browser that need these Python packages; None if nothing is."""
    if not CHROMIUM:
        return "chromium, chromium-browser or google-chrome on PATH"
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return f"the Python package {missing[0]}" if missing else None
