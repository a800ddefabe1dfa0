"""The two ways in which data can be wrong."""


class CorruptFile(ValueError):
    """A data file does not hold the bytes it should; the message names it."""


class CorpusError(ValueError):
    """A speech corpus, or one utterance in it, cannot be used; the message names the file and the line."""

    def __init__(self, path, problem: str, line: int | None = None):
        super().__init__(f"{path}{'' if line is None else f', line {line}'}: {problem}")
