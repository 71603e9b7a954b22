"""The exceptions that hedgerow raises on purpose, all subclasses of `HedgerowError`.

Each message states what is wrong, what was expected, what was given, and how to fix it.
"""

from __future__ import annotations


class HedgerowError(Exception):
    """Base class of all exceptions that hedgerow raises on purpose.

    Examples:
        ```python
        import hedgerow as hr

        try:
            hr.load_index("nothing.hedgerow")
        except hr.HedgerowError as error:
            assert "does not exist" in str(error)
        ```
    """


class CatalogError(HedgerowError, ValueError):
    """Items, SIDs or attributes do not form a valid catalog.

    Examples:
        ```python
        import hedgerow as hr

        try:
            hr.Catalog([[3, 1], [3, 9]], codebook_sizes=6)
        except hr.CatalogError as error:
            assert "row 1, level 1: code 9 is out of range" in str(error)
        ```
    """


class ArgumentError(HedgerowError, ValueError):
    """An argument is out of range, or does not fit the index, the catalog or the model.

    Examples:
        ```python
        import hedgerow as hr

        try:
            hr.build_index("items.parquet")
        except hr.ArgumentError as error:
            assert "takes a Catalog" in str(error)
        ```
    """


class PromptLengthError(ArgumentError):
    """A prompt has more tokens than the model takes before a SID.

    Examples:
        ```python
        import hedgerow as hr
        from hedgerow.demo.films import load_catalog, load_retriever

        retriever = load_retriever(hr.build_index(load_catalog()))
        (answer,) = retriever.answer([hr.Request([5] * 100_000)])
        assert isinstance(answer, hr.PromptLengthError)
        ```
    """


class IndexFileError(HedgerowError, RuntimeError):
    """A saved index is missing, damaged, written by another program, or in a newer format.

    Examples:
        ```python
        import hedgerow as hr

        try:
            hr.load_index("nothing.hedgerow")
        except hr.IndexFileError as error:
            assert "does not exist" in str(error)
        ```
    """


class QuantizerFileError(HedgerowError, RuntimeError):
    """A saved quantizer is missing, damaged, written by another program, or in a newer format.

    Examples:
        ```python
        import hedgerow as hr

        try:
            hr.Quantizer.load("nothing.safetensors")
        except hr.QuantizerFileError as error:
            assert "does not exist" in str(error)
        ```
    """


class BackendError(HedgerowError, RuntimeError):
    """A backend or kernel cannot run here, or an array belongs to another backend than the index.

    Examples:
        ```python
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0]]))
        try:
            index.to("tensorflow")
        except hr.BackendError as error:
            assert "tensorflow" in str(error)
        ```
    """


class ConstraintError(HedgerowError, ValueError):
    """A constraint set or an exclusion is invalid, or does not fit the index or the batch.

    Examples:
        ```python
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
        try:
            index.constraint(ids=["z"])
        except hr.ConstraintError as error:
            assert "'z'" in str(error)
        ```
    """


class VersionError(HedgerowError, RuntimeError):
    """A version of a live index was refused or does not exist. The current version stays in use.

    Examples:
        ```python
        import hedgerow as hr

        index = hr.build_index(hr.Catalog([[0, 1], [2, 0]], item_ids=["a", "b"]))
        live = hr.LiveIndex.create("shop.live", index)
        try:
            live.remove(["a", "b"])
        except hr.VersionError:
            assert live.version.number == 1
        ```
    """


class DeadlineError(HedgerowError, TimeoutError):
    """The deadline of a request had passed before its search began.

    Examples:
        ```python
        import time

        import hedgerow as hr
        from hedgerow.demo.films import load_catalog, load_retriever

        retriever = load_retriever(hr.build_index(load_catalog()))
        (answer,) = retriever.answer([hr.Request("Recommend me a western", deadline=time.monotonic() - 1)])
        assert isinstance(answer, hr.DeadlineError)
        ```
    """


class MissingDependencyError(HedgerowError, ImportError):
    """An optional package is not installed. The message names the extra that installs it.

    Examples:
        ```python
        import hedgerow as hr

        error = hr.MissingDependencyError.of("TrieIndex.where", "duckdb", "sql")
        assert "pip install 'hedgerow[sql]'" in str(error)
        assert isinstance(error, ImportError)
        ```
    """

    @classmethod
    def of(cls, what: str, package: str, extra: str, advice: str = "") -> MissingDependencyError:
        """Build the error for a feature that requires an optional package.

        Args:
            what: the feature, as the subject of the message.
            package: the missing distribution.
            extra: the extra of hedgerow that installs it.
            advice: an additional sentence. Default: none.

        Examples:
            ```python
            import hedgerow as hr

            error = hr.MissingDependencyError.of("TrieIndex.where", "duckdb", "sql")
            assert str(error).startswith("TrieIndex.where needs the package duckdb")
            ```
        """
        install = f"Install it with: {install_command(extra)}."
        return cls(f"{what} needs the package {package}, which is not installed. {install} {advice}".rstrip())


def install_command(extra: str) -> str:
    """The commands that install an extra: from a package index, and from a clone."""
    return f"pip install 'hedgerow[{extra}]', or in a clone: pip install '.[{extra}]'"
