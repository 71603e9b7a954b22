"""An index that changes: versions in a folder, switched atomically, followed by readers, taken back."""
