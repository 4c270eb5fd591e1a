"""What can go wrong, in words for the user.

The command line turns `InputError` into exit code 2 and `RunError` into exit code 1; any other exception is a defect.
"""

from collections.abc import Iterable


class TokenfleetError(Exception):
    """Base of every error whose message is meant for the user."""


class InputError(TokenfleetError):
    """Something that the user gave cannot be used.

    Parameters
    ----------
    problems
        One message or several; each names the file, line or field and says what was expected. All problems of one
        input are reported together.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class InfeasibleError(InputError):
    """No plan can satisfy the constraints of a planning problem."""


class RunError(TokenfleetError):
    """The run failed although its input was good."""


class SolverError(RunError):
    """A solver ended without an answer, which says nothing about the question."""
