"""Images, and how they are stored as TFRecords."""
