"""Errors that reach a user, each with the exit code of the command line."""


class MrtrusError(Exception):
    """Base of the errors whose one-sentence message is meant for the user."""

    exit_code = 3


class InputError(MrtrusError):
    """Something given by the user cannot be used; says what, in which file, and what to do."""

    exit_code = 2


class RegistrationError(MrtrusError):
    """The input was fine, but a stage failed."""

    exit_code = 3


class Cancelled(MrtrusError):
    """The user asked to stop."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("Cancelled.")
