"""Labels of images: prediction, tiles of large images, what the machine can do."""
