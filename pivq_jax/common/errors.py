"""The exception for invalid user input."""


class InputError(ValueError):
    """Invalid user input: flags, config or files.

    The message is a single line that states the value, the limit and the remedy.
    """
