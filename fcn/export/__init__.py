"""Networks for other programs: graphs from the image as it is to its labels, and how such a file is run."""
