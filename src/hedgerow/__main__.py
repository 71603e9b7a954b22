"""`python -m hedgerow`: the command line."""

from hedgerow.cli.main import main

main()
