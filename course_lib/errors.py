"""The one exception that means "the caller can mend this"."""


class InputError(ValueError):
    """What the caller gave cannot be used; the message names the value found, the one needed and the remedy."""
