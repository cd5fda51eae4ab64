"""What a build ends with when it cannot go on."""


class BuildError(Exception):
    """Says what is wrong and what to do."""
