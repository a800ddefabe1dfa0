"""What `make lab` asks of the Jupyter server, beside the user's own settings."""

import logging
import warnings
from pathlib import Path

LESSONS = Path(__file__).resolve().parent.parent.parent / "notebooks"


def is_worth_saying(record: logging.LogRecord) -> bool:
    """Leave out what ipyparallel's server extension tells of clusters that lessons start and stop.

    It takes every engine that stops for one that failed, and prints the end of its log, tracebacks included.
    """
    return record.levelno >= logging.ERROR or "ipyparallel" not in Path(record.pathname).parts


def keep_metadata(model: dict, path: str, contents_manager, **_) -> None:
    """Save a lesson with the metadata that it has in git, so that opening it changes no tracked file.

    JupyterLab adds the version of the user's Python, and says a second time that outputs are hidden.
    """
    if model["type"] != "notebook" or Path(contents_manager.root_dir, path).resolve().parent != LESSONS:
        return
    model["content"]["metadata"]["language_info"] = {"name": "python"}
    for cell in model["content"]["cells"]:
        if cell["metadata"].get("jupyter", {}).get("outputs_hidden"):
            cell["metadata"].pop("collapsed", None)


logging.getLogger("ServerApp").addFilter(is_worth_saying)
settings = get_config()  # type: ignore[name-defined]  # noqa: F821  (Jupyter defines it here)
settings.ContentsManager.pre_save_hook = keep_metadata
# The server reads its settings twice, and takes the second reading for a hook that replaces another one.
warnings.filterwarnings("ignore", "Overriding existing pre_save_hook")
# Otherwise each kernel warns on the terminal that what it says to this server is not encrypted.
settings.KernelManager.transport_encryption = "auto"
