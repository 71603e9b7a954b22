"""The methods that hedgerow is measured against, each in a file of its own."""
