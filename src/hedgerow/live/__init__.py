"""Live indexes: folders of versions that are switched atomically, followed by readers and rolled back."""
