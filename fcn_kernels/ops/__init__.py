"""The operators: one folder each, with the public function, the reference and a module for each backend."""
