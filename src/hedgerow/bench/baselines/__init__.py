"""The methods that hedgerow is compared with, one file per method."""
