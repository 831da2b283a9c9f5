"""What the SQLite store does within: its file, its pages, its transactions."""
