"""Mail that comes as files: the watched folder."""
