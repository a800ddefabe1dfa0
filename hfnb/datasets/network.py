"""Downloads that give up soon: behind a firewall a request may hang instead of failing."""

import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pooch
import requests
from tqdm.auto import tqdm

ANSWER_WITHIN = 4.0  # seconds


def answering(urls: Iterable[str]) -> set[str]:
    """Return the addresses that answer in time; all are asked at once, for each of a host's may hang."""
    found: set[str] = set()

    def ask(url):
        try:
            if requests.head(url, timeout=ANSWER_WITHIN, allow_redirects=True).ok:
                found.add(url)
        except requests.RequestException:
            pass

    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    deadline = time.monotonic() + ANSWER_WITHIN
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return set(found)


def download(url: str, path: Path) -> None:
    """Download a file with a progress bar; raises OSError (requests' errors are) if the connection fails."""
    with tqdm(total=1, unit="B", unit_scale=True, desc=path.name) as bar:  # pooch sets the total
        pooch.HTTPDownloader(progressbar=bar, timeout=(ANSWER_WITHIN, 20))(url, str(path), None)
