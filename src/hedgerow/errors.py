"""The errors hedgerow raises on purpose: each says what was wrong, what was expected, what came, and the way out."""


class HedgerowError(Exception):
    """Base of every error that hedgerow raises on purpose."""


class CatalogError(HedgerowError, ValueError):
    """The items, their SIDs or their attributes cannot make a catalog."""


class ArgumentError(HedgerowError, ValueError):
    """A call to a valid index or search has an argument that does not fit it."""


class IndexFileError(HedgerowError, RuntimeError):
    """A saved index is missing, foreign, truncated, altered or newer than this library."""


class QuantizerFileError(HedgerowError, RuntimeError):
    """A saved quantizer is missing, foreign, altered or newer than this library."""


class BackendError(HedgerowError, RuntimeError):
    """An array framework is missing, or arrays of one were given where another was expected."""


class ConstraintError(HedgerowError, ValueError):
    """A constraint set or an exclusion cannot be made, or does not fit the index or the batch."""


class VersionError(HedgerowError, RuntimeError):
    """A version of a live index was refused, or is not there; the one before serves on."""
