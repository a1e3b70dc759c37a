"""The one exception that a person, not the program, has to mend."""


class InputError(ValueError):
    """A wrong value from outside: says in one line which value, which limit and what to do."""
