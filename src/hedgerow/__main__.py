"""`python -m hedgerow` runs the command line."""

from hedgerow.cli.main import main

main()
