"""`python -m hedgerow`: the command line."""

from hedgerow.cli import main

main()
