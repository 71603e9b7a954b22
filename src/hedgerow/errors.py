"""The exceptions that hedgerow raises on purpose, all under `HedgerowError`.

A message states what was wrong, what was expected, what was given, and how to fix it.
"""

from __future__ import annotations


class HedgerowError(Exception):
    """Base class of every exception that hedgerow raises on purpose."""


class CatalogError(HedgerowError, ValueError):
    """The items, their SIDs or their attributes do not form a valid catalog."""


class ArgumentError(HedgerowError, ValueError):
    """An argument of a call is out of range or does not fit the index, the catalog or the model."""


class IndexFileError(HedgerowError, RuntimeError):
    """A saved index is missing, damaged, written by another program, or of a newer format."""


class QuantizerFileError(HedgerowError, RuntimeError):
    """A saved quantizer is missing, damaged, written by another program, or of a newer format."""


class BackendError(HedgerowError, RuntimeError):
    """A backend or kernel cannot run here, or arrays of one backend were given where another is expected."""


class ConstraintError(HedgerowError, ValueError):
    """A constraint set or an exclusion is invalid, or does not fit the index or the batch."""


class VersionError(HedgerowError, RuntimeError):
    """A version of a live index was refused or does not exist. The version before it stays in use."""


class MissingDependencyError(HedgerowError, ImportError):
    """An optional package is not installed. The message names the extra that installs it."""

    @classmethod
    def of(cls, what: str, package: str, extra: str, advice: str = "") -> MissingDependencyError:
        """Builds the error for a feature that needs a package of an extra.

        Args:
            what: the feature, as the subject of the sentence.
            package: the distribution that is missing.
            extra: the extra of hedgerow that installs it.
            advice: one more sentence, optional.
        """
        install = f"Install it with: pip install 'hedgerow[{extra}]'."
        return cls(f"{what} needs the package {package}, which is not installed. {install} {advice}".rstrip())
