"""Errors that a person reads: what is wrong, where, and what to do about it.

Exit codes: 2 for something the user can put right, 1 for a defect of ours, 75 for a stage that stopped at its time
limit with a checkpoint saved (EX_TEMPFAIL of sysexits.h: start it again).
"""

from __future__ import annotations

EXIT_DEFECT = 1
EXIT_USER = 2
EXIT_CHECKPOINTED = 75


class UserError(Exception):
    """Something the user can put right; printed without a traceback, exit code 2.

    Parameters
    ----------
    what : one sentence, with the value found and the one expected
    where : file, key or index it is about
    do : what to do, as an instruction
    """

    def __init__(self, what: str, *, where: object = None, do: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.do = do

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" {self.do}" if self.do else ""
        return f"{place}{self.what}{advice}"


class ShapeError(ValueError):
    """An op was given arrays whose shapes, dtypes or devices do not go together."""


class Checkpointed(Exception):
    """A stage saved its state and stops before it is done; started again it goes on (exit code 75)."""
